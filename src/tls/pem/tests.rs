use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A certificate as DER and PEM, and its key. No two are equal.
struct Made {
    der: Vec<u8>,
    pem: String,
    key: String,
    key_der: Vec<u8>,
}

fn made() -> Made {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["server.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Made {
        der: certificate.der().to_vec(),
        pem: certificate.pem().replace("\r\n", "\n"),
        key: key.serialize_pem().replace("\r\n", "\n"),
        key_der: key.serialize_der(),
    }
}

/// What is read from a text: certificates as DER, faults as text.
fn read(pem: &[u8]) -> Vec<Result<Vec<u8>, String>> {
    let found = certificates(pem).into_iter();
    found
        .map(|found| match found {
            Ok(found) => Ok(found.what.to_vec()),
            Err(fault) => Err(fault.to_string()),
        })
        .collect()
}

fn labelled_as(made: &Made, label: &str) -> String {
    made.pem.replace("CERTIFICATE-", &format!("{label}-"))
}

#[test]
fn certificates_are_found_however_people_have_them() {
    let (one, two) = (made(), made());
    let both = [Ok(one.der.clone()), Ok(two.der.clone())];
    let (a, b) = (one.pem.as_str(), two.pem.as_str());
    let glued = format!("{}{}", a.trim_end(), b.trim_end());
    assert!(glued.contains("-----END CERTIFICATE----------BEGIN CERTIFICATE-----"));
    let plain = format!("{a}{b}");
    let lines = |indent: &str| -> String {
        plain
            .lines()
            .map(|line| format!("{indent}{line}  \n"))
            .collect()
    };
    let body = |pem: &str| -> String {
        let lines = pem.lines().filter(|line| !line.starts_with('-'));
        lines.collect::<Vec<_>>().join("")
    };
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("one after the other", plain.clone().into()),
        ("no line end between them", glued.clone().into()),
        ("no line end between them, with CRLF", glued.replace('\n', "\r\n").into()),
        ("no line end between them, with CR", glued.replace('\n', "\r").into()),
        ("only a space between them", format!("{} {b}", a.trim_end()).into()),
        (
            "no line end after the base64",
            plain.replace("\n-----END", "-----END").into(),
        ),
        ("CRLF", plain.replace('\n', "\r\n").into()),
        ("CR", plain.replace('\n', "\r").into()),
        ("mixed line ends", format!("{}{b}", a.replace('\n', "\r\n")).into()),
        ("empty lines", plain.replace('\n', "\n\n").into()),
        ("byte order mark", format!("\u{feff}{plain}").into()),
        ("byte order mark in the middle too", format!("\u{feff}{a}\u{feff}{b}").into()),
        (
            "byte order mark where a line end is missing",
            format!("{}\u{feff}{b}", a.trim_end()).into(),
        ),
        ("spaces before and after each line", lines("  ").into()),
        ("tabs", lines("\t").into()),
        (
            "text around",
            format!("Root 1\n======\n{a}and\n{b}bye\n").into(),
        ),
        (
            "text without a line end",
            format!("# Root 1{a}# Root 2: {b}bye").into(),
        ),
        (
            "text after the last line",
            format!("{} # one\n{} # two", a.trim_end(), b.trim_end()).into(),
        ),
        (
            "key and parameters in between",
            format!("{a}{}-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{b}", one.key).into(),
        ),
        (
            "malformed block of another kind",
            format!("{a}-----BEGIN PGP MESSAGE-----\n:-(\n-----END PGP MESSAGE-----\n{b}").into(),
        ),
        (
            "certificate that is commented out",
            format!(
                "{}{plain}",
                made().pem.lines().map(|line| format!("# {line}\n")).collect::<String>()
            )
            .into(),
        ),
        (
            "line that mentions a marker",
            format!("-----BEGIN is how they begin\n{plain}").replace("-----BEGIN is", "\"-----BEGIN X-----\" is").into(),
        ),
        (
            "each on one line",
            [a, b]
                .map(|pem| format!("-----BEGIN CERTIFICATE-----{}-----END CERTIFICATE-----\n", body(pem)))
                .concat()
                .into(),
        ),
        (
            "all on one line, with spaces for line ends",
            plain.replace('\n', " ").into(),
        ),
        (
            "lines of unusual length",
            [a, b]
                .map(|pem| {
                    let body = body(pem);
                    let lines = body.as_bytes().chunks(17).map(|line| std::str::from_utf8(line).unwrap());
                    let lines = lines.collect::<Vec<_>>().join("\n");
                    format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
                })
                .concat()
                .into(),
        ),
        (
            "attributes written by OpenSSL's pkcs12",
            format!("Bag Attributes\n    localKeyID: 01 \nsubject=CN = a\n\n{a}Bag Attributes: <No Attributes>\n{b}").into(),
        ),
        (
            "headers",
            a.replace("BEGIN CERTIFICATE-----\n", "BEGIN CERTIFICATE-----\nX-Of: me\n\n").into_bytes().into_iter().chain(b.bytes()).collect(),
        ),
        (
            "six hyphens at the end",
            plain.replace("CERTIFICATE-----", "CERTIFICATE------").into(),
        ),
        (
            "the other labels of OpenSSL",
            [labelled_as(&one, "X509 CERTIFICATE"), labelled_as(&two, "TRUSTED CERTIFICATE")].concat().into(),
        ),
    ];
    for (why, pem) in rows {
        assert_eq!(
            read(&pem),
            both,
            "{why}:\n{}",
            String::from_utf8_lossy(&pem)
        );
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_the_others_are_found() {
    let (one, two, three) = (made(), made(), made());
    let (a, b, c) = (one.pem.as_str(), two.pem.as_str(), three.pem.as_str());
    let lines = a.lines().count();
    // The lines on which the middle one begins and ends.
    let (second, end) = (lines + 1, lines + b.lines().count());
    let rows = [
        (
            "no end",
            b.replace("-----END CERTIFICATE-----\n", ""),
            format!(
                "line {end}: the \"CERTIFICATE\" block from line {second} has no end before this line"
            ),
        ),
        (
            "different label at the end",
            b.replace("END CERTIFICATE", "END X509 CERTIFICATE"),
            format!(
                "line {end}: the \"CERTIFICATE\" block from line {second} ends as \"X509 CERTIFICATE\""
            ),
        ),
        (
            "no beginning",
            "-----END CERTIFICATE-----\n".to_owned(),
            format!(
                "line {second}: \"-----END CERTIFICATE-----\" without a matching \"-----BEGIN CERTIFICATE-----\""
            ),
        ),
        (
            "character outside of base64",
            b.replacen("\nMII", "\nMI*", 1),
            format!(
                "line {}: '*' is not base64, in the \"CERTIFICATE\" block from line {second}",
                second + 1
            ),
        ),
        (
            "ellipsis",
            b.replacen("\nMII", "\n...", 1),
            format!(
                "line {}: '.' is not base64, in the \"CERTIFICATE\" block from line {second}",
                second + 1
            ),
        ),
        (
            "URL-safe alphabet",
            b.replacen("\nMII", "\nM-_", 1),
            format!(
                "line {}: '-' is not base64, in the \"CERTIFICATE\" block from line {second}",
                second + 1
            ),
        ),
        (
            "literal \\n for line ends",
            b.trim_end().replace('\n', "\\n") + "\n",
            format!(
                "line {second}: literal \"\\n\" instead of a line end, in the \"CERTIFICATE\" block from line {second}"
            ),
        ),
        (
            "truncated base64",
            {
                let lines = b.lines().filter(|line| !line.starts_with('-'));
                let mut body = lines.collect::<String>().replace('=', "");
                // A single character left over from a group of four encodes nothing.
                while body.len() % 4 != 1 {
                    body.pop();
                }
                format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
            },
            format!(
                "line {second}: the base64 data of the block that begins here is truncated or ends incorrectly"
            ),
        ),
        (
            "empty block",
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned(),
            format!("line {second}: the block that begins here is empty"),
        ),
        (
            "four hyphens before",
            b.replace("-----BEGIN", "----BEGIN")
                .replace("-----END CERTIFICATE-----\n", ""),
            format!("line {second}: {BROKEN}"),
        ),
        (
            "four hyphens after the label",
            b.replace("BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE----")
                .replace("-----END CERTIFICATE-----\n", ""),
            format!("line {second}: {BROKEN}"),
        ),
        (
            "four hyphens before the end",
            b.replace("-----END", "----END"),
            format!("line {end}: {BROKEN}"),
        ),
        (
            "dashes instead of hyphens",
            b.replace("-----BEGIN", "–––––BEGIN")
                .replace("-----END CERTIFICATE-----\n", ""),
            format!("line {second}: {BROKEN}"),
        ),
        (
            "lower case",
            b.replace("-----BEGIN", "-----begin")
                .replace("-----END CERTIFICATE-----\n", ""),
            format!("line {second}: {BROKEN}"),
        ),
        (
            "block type that may contain several certificates",
            labelled_as(&two, "PKCS7"),
            format!(
                "line {second}: a \"PKCS7\" block is not supported here, only a \"CERTIFICATE\" block"
            ),
        ),
    ];
    for (why, middle, expected) in rows {
        for line_end in ["\n", "\r\n", "\r"] {
            let pem = format!("{a}{middle}{c}").replace('\n', line_end);
            let expected = [
                Ok(one.der.clone()),
                Err(expected.clone()),
                Ok(three.der.clone()),
            ];
            assert_eq!(read(pem.as_bytes()), expected, "{why}:\n{pem}");
        }
    }
}

#[test]
fn a_text_that_is_cut_anywhere_is_a_certificate_fewer_or_a_fault() {
    let (one, two) = (made(), made());
    let whole = format!("{}{}", one.pem, two.pem);
    // A partial marker on its own is text.
    let marker = one.pem.len() + "-----BEGIN CERTIFICATE-----".len();
    let last = whole.trim_end().len();
    for len in one.pem.len()..whole.len() {
        let found = read(&whole.as_bytes()[..len]);
        assert_eq!(found[0], Ok(one.der.clone()));
        match len {
            _ if len < marker => assert!(found.len() == 1 || found[1].is_err(), "{len}"),
            _ if len < last => assert!(found[1].is_err() && found.len() == 2, "{len}"),
            _ => assert_eq!(found[1], Ok(two.der.clone()), "{len}"),
        }
    }
    let utf16: Vec<u8> = "\u{feff}"
        .encode_utf16()
        .chain(whole.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    assert!(read(&utf16)[0].as_ref().unwrap_err().contains("UTF-16"));
}

#[test]
fn mutated_text_neither_panics_nor_loops() {
    use crate::proto::testing::Random;
    let mut random = Random::new(17);
    let (one, two) = (made(), made());
    let whole = format!("text\n{}{}{}", one.pem.trim_end(), two.pem, one.key);
    for _ in 0..2000 {
        let pem = random.mutate(whole.as_bytes());
        let _ = (certificates(&pem), keys(&pem), describe(&pem));
    }
}

#[test]
fn reading_takes_time_in_proportion_to_the_text() {
    // Each would take minutes if the rest of the text were examined again at each position.
    for piece in [
        "-----BEGIN A-----x*",
        "-----BEGIN A-----\n*\n",
        "-",
        "- ",
        "----BEGIN ",
        "-----END A-----",
        "#-----BEGIN A-----\n",
    ] {
        let text = piece.repeat(300_000 / piece.len());
        let _ = (certificates(text.as_bytes()), keys(text.as_bytes()));
    }
}

#[test]
fn what_is_there_instead_is_told() {
    let one = made();
    for (pem, expected) in [
        (&b""[..], "the text is empty"),
        (
            &one.der,
            "it is DER; `openssl x509 -inform der` or `openssl pkey -inform der` converts it to PEM",
        ),
        (b"not PEM", "no line begins with \"-----BEGIN \""),
        (one.key.as_bytes(), "it contains \"PRIVATE KEY\" on line 1"),
        (
            &format!("\n{}", one.pem).into_bytes(),
            "it contains \"CERTIFICATE\" on line 2",
        ),
    ] {
        assert_eq!(describe(pem), expected);
    }
}

#[test]
fn keys_are_found_beside_certificates_and_glued_to_them() {
    let (one, two) = (made(), made());
    let found = |pem: &str| -> Vec<_> {
        let found = keys(pem.as_bytes()).into_iter();
        found
            .map(|found| {
                found
                    .map(|found| found.what.secret_der().to_vec())
                    .map_err(|f| f.to_string())
            })
            .collect()
    };
    let both = [Ok(one.key_der.clone()), Ok(two.key_der.clone())];
    for pem in [
        format!("{}{}", one.key, two.key),
        format!("{}{}", one.key.trim_end(), two.key.trim_end()),
        format!(
            "\u{feff}{}{}{}",
            one.pem.trim_end(),
            one.key.trim_end(),
            two.key
        ),
        format!("{}{}{}", one.key, one.pem, two.key).replace('\n', "\r"),
        format!(
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----{}{}",
            one.key, two.key
        ),
    ] {
        assert_eq!(found(&pem), both, "{pem}");
    }
    let legacy = one.key.replace(
        "PRIVATE KEY-----\n",
        "RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n",
    );
    let legacy = legacy.replace("END PRIVATE", "END RSA PRIVATE");
    for encrypted in [one.key.replace("PRIVATE", "ENCRYPTED PRIVATE"), legacy] {
        let expected = "line 1: the key is encrypted; use `openssl pkey` to decrypt it";
        assert_eq!(found(&encrypted), [Err(expected.to_owned())]);
    }
    let openssh = one.key.replace("PRIVATE", "OPENSSH PRIVATE");
    let expected = "line 1: a key of type \"OPENSSH PRIVATE KEY\" is not supported";
    assert_eq!(found(&openssh), [Err(expected.to_owned())]);
}
