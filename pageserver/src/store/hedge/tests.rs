use object_store::{ObjectStoreExt, memory::InMemory};

use super::*;
use crate::simulation::{Fault, Weather};

const SECOND: Duration = Duration::from_secs(1);

/// A store with one object, and one whose operations go by `faults`.
async fn store(faults: impl FnMut(u64) -> Fault + Send + 'static) -> (Path, Hedged, Weather) {
    let (path, inner) = (Path::from("layer"), InMemory::new());
    inner.put(&path, PutPayload::from_static(b"0123456789")).await.expect("memory takes it");
    let weather = Weather::new(Arc::new(inner), faults);
    (path, Hedged::new(Arc::new(weather.clone())), weather)
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_is_asked_again_and_the_second_answer_counts() {
    let hang_first =
        |operation| if operation == 0 { Fault::Late(60 * SECOND) } else { Fault::None };
    let (path, hedged, weather) = store(hang_first).await;
    let began = Instant::now();
    let read = hedged.get_ranges(&path, std::slice::from_ref(&(2..5))).await;
    assert_eq!(read.expect("the second request is answered"), [Bytes::from_static(b"234")]);
    assert!(began.elapsed() < SECOND);
    assert_eq!(weather.operations(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_first_answer_counts_where_the_second_request_fails() {
    let faults = |operation| if operation == 0 { Fault::Late(SECOND) } else { Fault::Fails };
    let (path, hedged, weather) = store(faults).await;
    assert_eq!(hedged.range(&path, 0..2).await.expect("the first one"), "01");
    assert_eq!(weather.operations(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_read_in_time_is_asked_once() {
    let (path, hedged, weather) = store(|_| Fault::Late(Duration::from_millis(5))).await;
    for _ in 0..100 {
        hedged.range(&path, 0..2).await.expect("the store works");
    }
    assert_eq!(weather.operations(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_slow_as_a_whole_gets_few_requests_twice() {
    let (path, hedged, weather) = store(|_| Fault::Late(10 * SECOND)).await;
    for _ in 0..400 {
        hedged.range(&path, 0..2).await.expect("the store works");
    }
    let second = weather.operations() - 400;
    assert!(second <= 10 + 400 / 20, "{second} of 400 were asked again");
}

#[test]
fn the_patience_settles_where_few_answers_come_late() {
    let mut plan = Plan::new();
    // Latencies of 1 to 100 ms, in an order that mixes them.
    let late = (0..40_000_u64).filter(|turn| {
        let took = Duration::from_millis(turn * 37 % 100 + 1);
        let is_late = took > plan.begin();
        plan.answered(took);
        is_late && *turn >= 20_000
    });
    let late = late.count();
    assert!((100..=400).contains(&late), "{late} of 20,000 came late");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_off_is_asked_for_again() {
    let inner = Arc::new(InMemory::new());
    inner.put(&Path::from("folder/object"), "x".into()).await.expect("the store works");
    for failing in 0..=LISTS_MAX {
        let weather = Weather::new(inner.clone(), move |operation| {
            if operation < u64::from(failing) { Fault::Short } else { Fault::None }
        });
        let listed =
            Hedged::new(Arc::new(weather)).list_with_delimiter(Some(&Path::from("folder"))).await;
        match listed {
            Ok(listed) => assert_eq!((listed.objects.len(), failing < LISTS_MAX), (1, true)),
            Err(error) => assert_eq!(failing, LISTS_MAX, "{error}"),
        }
    }
}
