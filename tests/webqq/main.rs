//! The WebQQ example: its parts, each for itself, and the bot in virtual time.

#![allow(dead_code, reason = "the example and its tests each use a part")]

#[path = "../../examples/webqq/answers.rs"]
mod answers;
#[path = "../../examples/webqq/bot.rs"]
mod bot;
#[path = "../../examples/webqq/clock.rs"]
mod clock;
#[path = "../../examples/webqq/events.rs"]
mod events;
#[path = "../../examples/webqq/expect.rs"]
mod expect;
#[path = "../../examples/webqq/jar.rs"]
mod jar;
#[path = "../../examples/webqq/lists.rs"]
mod lists;
#[path = "../../examples/webqq/outbox.rs"]
mod outbox;
#[path = "../../examples/webqq/plugins.rs"]
mod plugins;
#[path = "../../examples/webqq/policy.rs"]
mod policy;
#[path = "../../examples/webqq/protocol.rs"]
mod protocol;
#[path = "../../examples/webqq/roster.rs"]
mod roster;
#[path = "../../examples/webqq/scenes.rs"]
mod scenes;
#[path = "../../examples/webqq/script.rs"]
mod script;
#[path = "../../examples/webqq/server/mod.rs"]
mod server;
#[path = "../../examples/webqq/settings.rs"]
mod settings;
#[path = "../../examples/webqq/steps.rs"]
mod steps;
#[path = "../../examples/webqq/talk.rs"]
mod talk;
#[path = "../../examples/webqq/verdict.rs"]
mod verdict;

#[path = "answers.rs"]
mod answers_tests;
mod brain;
mod desk;
mod front_end;
#[path = "jar.rs"]
mod jar_tests;
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
