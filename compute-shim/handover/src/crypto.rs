//! OpenSSL's authenticated encryption, which the process has where Postgres was built with OpenSSL.
//!
//! Nothing is linked: the functions are looked for when they are first needed.

use core::{
    ffi::{CStr, c_int, c_void},
    mem::transmute_copy,
    ptr::{null, null_mut},
};

use crate::c;

/// Bytes of a key, of which the shorter ciphers use the first.
pub const KEY_BYTES_MAX: usize = 32;
/// Bytes of what a record's nonce is made of.
pub const IV_BYTES: usize = 12;
/// Bytes that authenticate a record.
pub const TAG_BYTES: usize = 16;

const GET_TAG: c_int = 0x10;
const SET_TAG: c_int = 0x11;

type New = unsafe extern "C" fn() -> *mut c_void;
type Cipher = unsafe extern "C" fn() -> *const c_void;
type Init = unsafe extern "C" fn(
    *mut c_void,
    *const c_void,
    *mut c_void,
    *const u8,
    *const u8,
    c_int,
) -> c_int;
type Control = unsafe extern "C" fn(*mut c_void, c_int, c_int, *mut c_void) -> c_int;
type Update = unsafe extern "C" fn(*mut c_void, *mut u8, *mut c_int, *const u8, c_int) -> c_int;
type Final = unsafe extern "C" fn(*mut c_void, *mut u8, *mut c_int) -> c_int;

/// What is used of OpenSSL.
#[derive(Clone, Copy)]
pub struct OpenSsl {
    new: New,
    ciphers: [Cipher; 3],
    init: Init,
    control: Control,
    update: Update,
    finish: Final,
}

impl OpenSsl {
    /// Looks for it in this process.
    pub fn find() -> Option<OpenSsl> {
        // SAFETY: these are the types of OpenSSL's functions since 1.1, from evp.h.
        unsafe {
            Some(OpenSsl {
                new: function(c"EVP_CIPHER_CTX_new")?,
                ciphers: [
                    function(c"EVP_aes_128_gcm")?,
                    function(c"EVP_aes_256_gcm")?,
                    function(c"EVP_chacha20_poly1305")?,
                ],
                init: function(c"EVP_CipherInit_ex")?,
                control: function(c"EVP_CIPHER_CTX_ctrl")?,
                update: function(c"EVP_CipherUpdate")?,
                finish: function(c"EVP_CipherFinal_ex")?,
            })
        }
    }
}

/// # Safety
/// `F` is the type of the function of this name.
unsafe fn function<F>(name: &CStr) -> Option<F> {
    // SAFETY: the name ends with a zero.
    let found = unsafe { c::dlsym(null_mut(), name.as_ptr()) };
    // SAFETY: the caller's promise; a function's address is a pointer.
    (!found.is_null()).then(|| unsafe { transmute_copy(&found) })
}

/// One direction's key.
pub struct Key {
    openssl: OpenSsl,
    context: *mut c_void,
    iv: [u8; IV_BYTES],
    sequence: u64,
    /// 1 for one that seals, as OpenSSL has it.
    seals: c_int,
}

impl Key {
    /// A key for the cipher of this number (0: AES-128-GCM, 1: AES-256-GCM, 2: ChaCha20-Poly1305) which
    /// seals or opens the record of this number next.
    pub fn new(
        openssl: OpenSsl,
        cipher: u8,
        seals: bool,
        sequence: u64,
        bytes: &[u8],
    ) -> Option<Key> {
        // SAFETY: it takes nothing.
        let context = unsafe { (openssl.new)() };
        let seals = c_int::from(seals);
        let mut key = Key { openssl, context, iv: [0; IV_BYTES], sequence, seals };
        (!context.is_null() && key.set(cipher, bytes)).then_some(key)
    }

    /// Puts another key in its place, whose first record is next.
    pub fn replace(&mut self, cipher: u8, bytes: &[u8]) -> bool {
        self.sequence = 0;
        self.set(cipher, bytes)
    }

    fn set(&mut self, cipher: u8, bytes: &[u8]) -> bool {
        let Some((key, iv)) = bytes.split_first_chunk::<KEY_BYTES_MAX>() else { return false };
        let (Some(iv), Some(cipher)) =
            (iv.first_chunk::<IV_BYTES>(), self.openssl.ciphers.get(usize::from(cipher)))
        else {
            return false;
        };
        self.iv = *iv;
        let seals = self.seals;
        // SAFETY: the context is OpenSSL's own; no cipher has a longer key.
        let set = unsafe {
            (self.openssl.init)(self.context, cipher(), null_mut(), key.as_ptr(), null(), seals)
        };
        set == 1
    }

    /// The number of the next record.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Encrypts what stands before the last 16 bytes in its place, and puts the tag there.
    pub fn seal(&mut self, header: &[u8], body: &mut [u8]) -> bool {
        let Some((text, tag)) = body.split_last_chunk_mut::<TAG_BYTES>() else { return false };
        let place = tag.as_mut_ptr().cast();
        // SAFETY: there is room for a tag.
        self.next_record()
            && self.crypt(header, text)
            && unsafe {
                (self.openssl.control)(self.context, GET_TAG, TAG_BYTES as c_int, place) == 1
            }
    }

    /// Decrypts what stands before the last 16 bytes in its place, where those are its tag.
    pub fn open(&mut self, header: &[u8], body: &mut [u8]) -> bool {
        let Some((text, tag)) = body.split_last_chunk_mut::<TAG_BYTES>() else { return false };
        let place = tag.as_mut_ptr().cast();
        // SAFETY: there is a tag.
        self.next_record()
            && unsafe {
                (self.openssl.control)(self.context, SET_TAG, TAG_BYTES as c_int, place) == 1
            }
            && self.crypt(header, text)
    }

    /// The nonce of RFC 8446, 5.3: the number of the record over the end of the IV.
    fn next_record(&mut self) -> bool {
        let mut nonce = self.iv;
        for (place, byte) in nonce[IV_BYTES - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *place ^= byte;
        }
        self.sequence += 1;
        let (cipher, engine, key) = (null(), null_mut(), null());
        // SAFETY: the nonce has the length of each cipher's; the rest stays as it was set.
        unsafe { (self.openssl.init)(self.context, cipher, engine, key, nonce.as_ptr(), -1) == 1 }
    }

    fn crypt(&mut self, header: &[u8], text: &mut [u8]) -> bool {
        let OpenSsl { update, finish, .. } = self.openssl;
        let (mut done, context, place) = (0, self.context, text.as_mut_ptr());
        // SAFETY: each length is that of what it is of; these ciphers give as many bytes as they take, in
        // their place, and none at the end.
        unsafe {
            update(context, null_mut(), &mut done, header.as_ptr(), header.len() as c_int) == 1
                && update(context, place, &mut done, place, text.len() as c_int) == 1
                && finish(context, place.add(text.len()), &mut done) == 1
        }
    }
}
