//! Each switch takes effect, and is counted under its name.

use std::collections::BTreeSet;

use super::client::{Client, retcode};
use super::{NUMBER, stranger};
use crate::server::{Fault, Manner, Place, Step, Switch, all_switches, switches};

/// Arms `fault`, and does what a client does around `step`.
fn strike(client: &mut Client, step: Step, fault: Fault) {
    if !step.is_before_login() {
        client.log_in();
    }
    client.server.arm(NUMBER, step, fault);
    match step {
        Step::Sig => drop(client.sig()),
        Step::Check => {
            client.sig();
            client.check();
        }
        Step::Captcha => {
            client.sig();
            client.check();
            client.captcha();
        }
        Step::PtLogin => {
            client.sig();
            let code = client.check().unwrap();
            client.ptlogin_answer(&code);
        }
        Step::CheckSig => client.log_in(),
        Step::Poll => {
            drop(client.poll());
            for text in ["one", "two"] {
                client
                    .server
                    .say(client.now, NUMBER, &Place::Buddy, "Alice", text, false);
            }
        }
        step => client.visit(step),
    }
}

#[test]
fn every_switch_fires_under_its_name() {
    for switch in switches() {
        let mut client = stranger();
        match switch {
            Switch::Arm(step, fault) => strike(&mut client, step, fault),
            Switch::ArmThrice(step, fault) => {
                for _ in 0..3 {
                    client.server.arm(NUMBER, step, fault);
                }
                client.log_in();
                for _ in 0..3 {
                    client.poll_answer();
                }
            }
            Switch::Kick => {
                client.log_in();
                client.hold_poll();
                client.server.kick(client.now, NUMBER);
            }
            Switch::Intrude => {
                client.log_in();
                client.hold_poll();
                client.server.intrude(client.now, NUMBER);
            }
        }
        let name = switch.name();
        let ledger = client.server.ledger();
        assert!(
            ledger.fired.contains_key(&name),
            "{name}: {:?}",
            ledger.fired
        );
        assert_eq!(
            ledger.unprovoked().count(),
            0,
            "{name}: {:?}",
            ledger.errors
        );
        assert_eq!(client.server.armed(NUMBER), 0, "{name}");
    }
}

#[test]
fn no_two_switches_share_a_name() {
    let names = all_switches();
    let distinct: BTreeSet<&String> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "{names:#?}");
}

#[test]
fn several_faults_of_one_step_queue_up() {
    let mut client = stranger();
    client.log_in();
    for fault in [Fault::Chunked, Fault::TextPlain, Fault::Retcode(100_101)] {
        client.server.arm(NUMBER, Step::Friends, fault);
    }
    assert_eq!(client.friends().manner, Manner::Chunked);
    assert_eq!(client.friends().headers[0].1, "text/plain");
    assert_eq!(retcode(&client.friends()), 100_101);
    assert_eq!(retcode(&client.friends()), 0);
}

#[test]
fn a_refused_call_leaves_the_fault_armed() {
    let mut client = stranger();
    client.log_in();
    client.server.arm(NUMBER, Step::Friends, Fault::Empty);
    client.spoil(|call| call.method = "PUT".into());
    client.friends();
    assert_eq!(client.server.armed(NUMBER), 1);
}
