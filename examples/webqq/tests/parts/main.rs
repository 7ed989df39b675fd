//! The WebQQ example: tests of its parts, and of the bot in virtual time.

#![allow(dead_code, reason = "the example and its tests each use a part")]

#[path = "../../src/answers.rs"]
mod answers;
#[path = "../../src/bot.rs"]
mod bot;
#[path = "../../src/clock.rs"]
mod clock;
#[path = "../../src/events.rs"]
mod events;
#[path = "../../src/expect.rs"]
mod expect;
#[path = "../../src/lists.rs"]
mod lists;
#[path = "../../src/outbox.rs"]
mod outbox;
#[path = "../../src/plugins.rs"]
mod plugins;
#[path = "../../src/policy.rs"]
mod policy;
#[path = "../../src/protocol.rs"]
mod protocol;
#[path = "../../src/roster.rs"]
mod roster;
#[path = "../../src/scenes.rs"]
mod scenes;
#[path = "../../src/script.rs"]
mod script;
#[path = "../../src/server/mod.rs"]
mod server;
#[path = "../../src/sessions.rs"]
mod sessions;
#[path = "../../src/settings.rs"]
mod settings;
#[path = "../../src/steps.rs"]
mod steps;
#[path = "../../src/talk.rs"]
mod talk;
#[path = "../../src/verdict.rs"]
mod verdict;

#[path = "answers.rs"]
mod answers_tests;
mod brain;
mod desk;
mod front_end;
mod life;
#[path = "outbox.rs"]
mod outbox_tests;
#[path = "plugins.rs"]
mod plugins_tests;
#[path = "policy.rs"]
mod policy_tests;
#[path = "protocol.rs"]
mod protocol_tests;
#[path = "roster.rs"]
mod roster_tests;
mod simulated;
mod trials;
#[path = "verdict.rs"]
mod verdict_tests;
mod week;
