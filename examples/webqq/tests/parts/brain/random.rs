//! Calls with random defects: nothing that a client sends may crash the server.

use super::online;
use crate::server::Call;

/// A small random generator (xorshift).
fn draw(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Removes, empties or changes a random part of a call.
fn spoil_at_random(call: &mut Call, mut seed: u64) {
    let parts = [&mut call.query, &mut call.form, &mut call.headers];
    for part in parts {
        if part.is_empty() {
            continue;
        }
        let index = draw(&mut seed) as usize % part.len();
        match draw(&mut seed) % 6 {
            0 => drop(part.remove(index)),
            1 => part[index].1.clear(),
            2 => part[index].1 = draw(&mut seed).to_string(),
            3 => part[index].1 = part[index].1.replace(['1', '"', '='], "é"),
            _ => {}
        }
    }
}

#[test]
fn whatever_a_client_sends_is_answered() {
    let mut client = online();
    for seed in 1..3000 {
        let alice = client.alice();
        client.spoil(move |call| spoil_at_random(call, seed * 0x9e37_79b9));
        match seed % 9 {
            0 => drop(client.sig()),
            1 => drop(client.check_answer()),
            2 => drop(client.captcha()),
            3 => drop(client.ptlogin_answer("!ABC")),
            4 => drop(client.login2()),
            5 => drop(client.poll()),
            6 => drop(client.send_buddy(alice, "hi")),
            7 => drop(client.heartbeat()),
            _ => drop(client.query(
                "d.web2.qq.com",
                "/channel/get_c2cmsg_sig2",
                "id=1&to_uin=1&service_type=0",
            )),
        }
        client.after(0.5);
        client.log_in();
    }
    assert!(client.server.ledger().unprovoked().count() > 1000);
}
