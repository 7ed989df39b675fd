//! The two hashes of the login: one proves the password, the other accompanies requests for lists.

use std::fmt::Write;

use md5::{Digest, Md5};

/// Returns what a client sends instead of its password: `H(H(md5(password) uin) CODE)`, where `H`
/// is MD5 in upper-case hex.
pub(crate) fn password(uin: u64, password: &str, code: &str) -> String {
    let mut salted = Md5::digest(password).to_vec();
    salted.extend(uin.to_be_bytes());
    let inner = upper_hex(&Md5::digest(salted));
    upper_hex(&Md5::digest(inner + &code.to_uppercase()))
}

/// Returns the hash that accompanies a request for a list: `ptwebqq` XORed with the repeated
/// account number.
pub(crate) fn list(uin: u64, ptwebqq: &str) -> String {
    let key = uin.to_string();
    let salted = ptwebqq.bytes().chain(*b"password error");
    let mixed: Vec<u8> = key
        .bytes()
        .cycle()
        .zip(salted)
        .map(|(k, s)| k ^ s)
        .collect();
    upper_hex(&mixed)
}

fn upper_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}"); // writing to a String cannot fail
        text
    })
}

#[cfg(test)]
mod tests {
    use super::{list, password};

    #[test]
    fn passwords_hash_as_the_real_client_hashed_them() {
        for (uin, secret, code, hash) in [
            (
                1685359365,
                "password123",
                "!PTH",
                "6B336642C524AB0FE9F08E3D46195C50",
            ),
            (
                1685359365,
                "password123",
                "abcd",
                "EAC20CD82700ABA8059C1444922F9E63",
            ),
            (10001, "secret", "!ABC", "266B49F9D2365CF41193B08F235CFC28"),
        ] {
            assert_eq!(password(uin, secret, code), hash, "{uin} {code}");
        }
    }

    #[test]
    fn lists_hash_as_the_real_client_hashed_them() {
        for (uin, ptwebqq, hash) in [
            (
                1685359365,
                "0123456789abcdef",
                "01070A0607000F040E0C50545B5156534952454646594A5113504B415947",
            ),
            (
                10001,
                "0123456789abcdef",
                "0101020305040607080850525354545740514342465F4254115442425F43",
            ),
            (
                1685359365,
                "2c14c3c4c0e5ce5b4e6f8ab3bb6e9f2d0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f6",
                "0355090150065A07550554035B5006570D56005309575A0651570F560F5303520851025\
                 00B55055405540D5605510E560E530806590451075A00520154035E0343544A40415A43\
                 52185041475641",
            ),
        ] {
            assert_eq!(list(uin, ptwebqq), hash, "{uin} {ptwebqq}");
        }
    }
}
