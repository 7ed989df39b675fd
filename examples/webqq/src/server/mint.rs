//! The tokens that the server hands out and expects back. They are recognized without keeping a
//! list of them.

/// The purpose of a token. A token of one kind is not accepted as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    LoginSig = 1,
    CheckCookie,
    CaptchaCookie,
    PtSig,
    PtWebQq,
    Skey,
    Jar,
    Session,
    Vfwebqq,
    SessSig,
    Picture,
}

/// A token, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) account: u64,
    pub(crate) serial: u64,
    /// Whether this server made it, rather than one that ran here before.
    pub(crate) is_ours: bool,
}

/// Makes tokens and random numbers, which are the same for the same seed.
#[derive(Debug)]
pub(crate) struct Mint {
    seed: u64,
    state: u64,
}

impl Mint {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// Returns a random number.
    pub(crate) fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    pub(crate) fn draw_below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// Returns 64 hex digits: the account, the serial number, and a mark that only this server
    /// makes.
    pub(crate) fn token(&self, kind: Kind, account: u64, serial: u64) -> String {
        let mark = mix(self.seed ^ mix(account ^ mix(serial ^ mix(kind as u64))));
        let more = mix(mark);
        format!("{account:016x}{serial:016x}{mark:016x}{more:016x}")
    }

    /// Returns `None` for anything that no server of this kind has made.
    pub(crate) fn read(&self, kind: Kind, token: &str) -> Option<Token> {
        if token.len() != 64 || !token.is_ascii() {
            return None;
        }
        let account = u64::from_str_radix(&token[..16], 16).ok()?;
        let serial = u64::from_str_radix(&token[16..32], 16).ok()?;
        let is_ours = self.token(kind, account, serial) == token;
        Some(Token {
            account,
            serial,
            is_ours,
        })
    }
}

/// The finalizer of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Kind, Mint};

    #[test]
    fn a_token_is_known_to_its_server_and_kind_only() {
        let (mint, other) = (Mint::new(1), Mint::new(2));
        let token = mint.token(Kind::Session, 10001, 3);
        let read = mint.read(Kind::Session, &token).unwrap();
        assert!(read.is_ours && read.account == 10001 && read.serial == 3);
        assert!(!other.read(Kind::Session, &token).unwrap().is_ours);
        assert!(!mint.read(Kind::Vfwebqq, &token).unwrap().is_ours);
        assert_eq!(mint.read(Kind::Session, "null"), None);
    }
}
