use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A certificate, its PEM and its key's. No two are the same.
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

/// What is read of a text: certificates as DER, faults as text.
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
        ("glued", glued.clone().into()),
        ("glued, with CRLF", glued.replace('\n', "\r\n").into()),
        ("glued, with CR", glued.replace('\n', "\r").into()),
        ("glued by a blank", format!("{} {b}", a.trim_end()).into()),
        (
            "the base64 glued to the last line",
            plain.replace("\n-----END", "-----END").into(),
        ),
        ("CRLF", plain.replace('\n', "\r\n").into()),
        ("CR", plain.replace('\n', "\r").into()),
        ("mixed line ends", format!("{}{b}", a.replace('\n', "\r\n")).into()),
        ("empty lines", plain.replace('\n', "\n\n").into()),
        ("a byte order mark", format!("\u{feff}{plain}").into()),
        ("one in the middle too", format!("\u{feff}{a}\u{feff}{b}").into()),
        (
            "one where a line end is missing",
            format!("{}\u{feff}{b}", a.trim_end()).into(),
        ),
        ("blanks before and behind", lines("  ").into()),
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
            "text behind the last line",
            format!("{} # one\n{} # two", a.trim_end(), b.trim_end()).into(),
        ),
        (
            "a key and parameters between",
            format!("{a}{}-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{b}", one.key).into(),
        ),
        (
            "a block of another kind that is no good",
            format!("{a}-----BEGIN PGP MESSAGE-----\n:-(\n-----END PGP MESSAGE-----\n{b}").into(),
        ),
        (
            "one that is commented out",
            format!(
                "{}{plain}",
                made().pem.lines().map(|line| format!("# {line}\n")).collect::<String>()
            )
            .into(),
        ),
        (
            "a line about them",
            format!("-----BEGIN is how they begin\n{plain}").replace("-----BEGIN is", "\"-----BEGIN X-----\" is").into(),
        ),
        (
            "each in one line",
            [a, b]
                .map(|pem| format!("-----BEGIN CERTIFICATE-----{}-----END CERTIFICATE-----\n", body(pem)))
                .concat()
                .into(),
        ),
        (
            "all in one line, with blanks for line ends",
            plain.replace('\n', " ").into(),
        ),
        (
            "lines of other lengths",
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
            "attributes of OpenSSL's pkcs12",
            format!("Bag Attributes\n    localKeyID: 01 \nsubject=CN = a\n\n{a}Bag Attributes: <No Attributes>\n{b}").into(),
        ),
        (
            "headers",
            a.replace("BEGIN CERTIFICATE-----\n", "BEGIN CERTIFICATE-----\nX-Of: me\n\n").into_bytes().into_iter().chain(b.bytes()).collect(),
        ),
        (
            "six hyphens behind",
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
    // Where the one in the middle begins, and where it ends.
    let (second, end) = (lines + 1, lines + b.lines().count());
    let rows = [
        (
            "no end",
            b.replace("-----END CERTIFICATE-----\n", ""),
            format!("line {end}: the block \"CERTIFICATE\" of line {second} has not ended here"),
        ),
        (
            "another end",
            b.replace("END CERTIFICATE", "END X509 CERTIFICATE"),
            format!(
                "line {end}: the block \"CERTIFICATE\" of line {second} ends as \"X509 CERTIFICATE\""
            ),
        ),
        (
            "no beginning",
            "-----END CERTIFICATE-----\n".to_owned(),
            format!(
                "line {second}: \"-----END CERTIFICATE-----\" without a line that begins the block"
            ),
        ),
        (
            "a character that is none",
            b.replacen("\nMII", "\nMI*", 1),
            format!(
                "line {}: '*' is no base64, in the block \"CERTIFICATE\" of line {second}",
                second + 1
            ),
        ),
        (
            "an ellipsis",
            b.replacen("\nMII", "\n...", 1),
            format!(
                "line {}: '.' is no base64, in the block \"CERTIFICATE\" of line {second}",
                second + 1
            ),
        ),
        (
            "the alphabet of URLs",
            b.replacen("\nMII", "\nM-_", 1),
            format!(
                "line {}: '-' is no base64, in the block \"CERTIFICATE\" of line {second}",
                second + 1
            ),
        ),
        (
            "line ends that are written out",
            b.trim_end().replace('\n', "\\n") + "\n",
            format!(
                "line {second}: \"\\n\" in the block \"CERTIFICATE\" of line {second}, where a line end should be"
            ),
        ),
        (
            "base64 that is cut short",
            {
                let lines = b.lines().filter(|line| !line.starts_with('-'));
                let mut body = lines.collect::<String>().replace('=', "");
                // One character of four says nothing.
                while body.len() % 4 != 1 {
                    body.pop();
                }
                format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
            },
            format!(
                "line {second}: the base64 of the block that begins here is cut short or ends wrongly"
            ),
        ),
        (
            "nothing in it",
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
            "four hyphens behind",
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
            "dashes",
            b.replace("-----BEGIN", "–––––BEGIN")
                .replace("-----END CERTIFICATE-----\n", ""),
            format!("line {second}: {BROKEN}"),
        ),
        (
            "small letters",
            b.replace("-----BEGIN", "-----begin")
                .replace("-----END CERTIFICATE-----\n", ""),
            format!("line {second}: {BROKEN}"),
        ),
        (
            "a kind that holds several",
            labelled_as(&two, "PKCS7"),
            format!(
                "line {second}: a block of the kind \"PKCS7\" cannot be read here, only one of \"CERTIFICATE\""
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
    // What is left of a marker alone is text.
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
    // Each would take minutes if all of the rest were looked at again at each place.
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
        (&b""[..], "it is empty"),
        (
            &one.der,
            "it is DER; `openssl x509 -inform der` or `openssl pkey -inform der` makes PEM of it",
        ),
        (b"not PEM", "no line begins with \"-----BEGIN \""),
        (one.key.as_bytes(), "it holds \"PRIVATE KEY\" in line 1"),
        (
            &format!("\n{}", one.pem).into_bytes(),
            "it holds \"CERTIFICATE\" in line 2",
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
        let expected =
            "line 1: the key is encrypted; `openssl pkey` writes it without a passphrase";
        assert_eq!(found(&encrypted), [Err(expected.to_owned())]);
    }
    let openssh = one.key.replace("PRIVATE", "OPENSSH PRIVATE");
    let expected = "line 1: a key of the kind \"OPENSSH PRIVATE KEY\" cannot be used here";
    assert_eq!(found(&openssh), [Err(expected.to_owned())]);
}
