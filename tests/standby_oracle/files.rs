//! Compares everything of a base backup that is neither a relation nor `pg_control`: SLRUs, relation maps, two-phase files, origins,
//! and which databases and tablespaces there are.

use std::collections::BTreeSet;

use anyhow::Result;
use wal_format::{Lsn, PAGE_BYTES, Slru};

use crate::{
    report::{Report, Subject},
    served::Served,
    stock_state::StockState,
};

const ORIGINS: &str = "pg_logical/replorigin_checkpoint";
/// A file of origins without an origin: magic and checksum.
const NO_ORIGINS_BYTES: usize = 8;
/// Bytes of an origin.
const ORIGIN_BYTES: usize = 16;

/// Compares them.
pub fn compare(lsn: Lsn, state: &StockState, served: &Served, report: &mut Report) -> Result<()> {
    let sorted = |mut list: Vec<(u32, u32)>| {
        list.sort_unstable();
        list
    };
    let databases = state.databases()?;
    for _ in databases.on_demand {
        report.count("database's folder made on demand in another tablespace: made by the compute");
    }
    let (stock, ours) = (databases.own, sorted(served.head.databases.clone()));
    if stock != ours {
        let detail = format!("{stock:?} in stock, {ours:?} served");
        report.differ(lsn, Subject::Folders("databases"), detail);
    }
    let (stock, mut ours) = (&state.tablespaces, served.head.tablespaces.clone());
    ours.sort_unstable();
    if *stock != ours {
        let detail = format!("{stock:?} in stock, {ours:?} served");
        report.differ(lsn, Subject::Folders("tablespaces"), detail);
    }
    let files = state.files()?;
    let paths: BTreeSet<&String> = files.keys().chain(served.files.keys()).collect();
    for path in paths {
        let (stock, ours) = (files.get(path), served.files.get(path));
        let slru = Slru::ALL.into_iter().find(|slru| path.starts_with(slru.folder()));
        if slru.is_some() {
            compare_slru(lsn, path, stock, ours, report);
        } else if path == ORIGINS {
            compare_origins(lsn, stock, ours, report);
        } else if stock == ours {
            report.count("identical: file");
        } else {
            let bytes = |file: Option<&Vec<u8>>| file.map(Vec::len);
            let detail = format!("{:?} bytes in stock, {:?} served", bytes(stock), bytes(ours));
            report.differ(lsn, Subject::File(path.clone()), detail);
        }
    }
    Ok(())
}

/// Page by page; a page that only one has is the same as one of zeros.
fn compare_slru(
    lsn: Lsn,
    path: &str,
    stock: Option<&Vec<u8>>,
    ours: Option<&Vec<u8>>,
    report: &mut Report,
) {
    let pages = |file: Option<&Vec<u8>>| file.map_or(0, Vec::len).div_ceil(PAGE_BYTES);
    let page = |file: Option<&Vec<u8>>, at: usize| {
        let range = at * PAGE_BYTES..(at + 1) * PAGE_BYTES;
        file.and_then(|file| file.get(range)).map(<[u8]>::to_vec)
    };
    let folder = path.rsplit_once('/').map_or(path, |(folder, _)| folder);
    for at in 0..pages(stock).max(pages(ours)) {
        let (stock, ours) = (page(stock, at), page(ours, at));
        report.blocks += 1;
        let is_zero = |page: &Option<Vec<u8>>| {
            page.as_ref().is_none_or(|page| page.iter().all(|byte| *byte == 0))
        };
        if stock == ours {
            report.count(format!("identical: {folder}"));
        } else if is_zero(&stock) && is_zero(&ours) {
            let lacks = if stock.is_none() { "stock" } else { "the base backup" };
            report.count(format!("page of zeros that {lacks} has not: {folder}"));
        } else {
            let detail = describe(stock.as_deref(), ours.as_deref());
            report.differ(lsn, Subject::SlruPage(path.to_owned(), at as u32), detail);
        }
    }
}

fn describe(stock: Option<&[u8]>, ours: Option<&[u8]>) -> String {
    let (Some(stock), Some(ours)) = (stock, ours) else {
        let has = |page: Option<&[u8]>| if page.is_some() { "has it" } else { "has not" };
        return format!("stock {}, the base backup {}", has(stock), has(ours));
    };
    let differ: Vec<usize> = (0..PAGE_BYTES).filter(|at| stock[*at] != ours[*at]).collect();
    let (first, last) = (differ[0], differ[differ.len() - 1]);
    let window = |page: &[u8]| format!("{:02x?}", &page[first..(first + 16).min(PAGE_BYTES)]);
    let (stock, ours) = (window(stock), window(ours));
    format!("{} bytes in {first}..={last}: stock {stock} served {ours}", differ.len())
}

/// The order in the file is that of the server's memory.
fn compare_origins(lsn: Lsn, stock: Option<&Vec<u8>>, ours: Option<&Vec<u8>>, report: &mut Report) {
    let origins = |file: Option<&Vec<u8>>| {
        let entries = file.and_then(|file| file.get(4..file.len() - 4)).unwrap_or_default();
        entries.chunks(ORIGIN_BYTES).map(<[u8]>::to_vec).collect::<BTreeSet<_>>()
    };
    if origins(stock) != origins(ours) {
        let detail = format!("{:02x?} in stock, {:02x?} served", origins(stock), origins(ours));
        report.differ(lsn, Subject::File(ORIGINS.to_owned()), detail);
    } else if ours.is_none() && stock.is_some_and(|file| file.len() == NO_ORIGINS_BYTES) {
        report.count("file of origins without an origin: not in the base backup");
    } else {
        report.count("identical: file");
    }
}
