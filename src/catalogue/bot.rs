//! Pack Bot: the bot itself.

use super::alert::{Alert, Group, Inhibition, Level, Source, Subject, Unit};
use super::metrics;
use crate::api::alerts::{Pack, Severity};

/// While the bot is down, what follows from that is silent.
pub const INHIBITIONS: &[Inhibition] = &[Inhibition {
    source: "BotDown",
    targets: &["HighResponseTime", "BotDisconnected"],
}];

/// Of a bot without a health document: that what it serves instead is not there.
fn silent(s: &Subject) -> String {
    let read = [Source::BotMetrics, Source::Plugins]
        .into_iter()
        .find(|source| s.reads(*source));
    let Some(source) = read.filter(|_| !s.reads(Source::Health)) else {
        return String::new();
    };
    format!(
        "max without (source) ({}{{{},source=\"{}\"}} == 0) or ",
        metrics::EXPORTER_SOURCE_UP.name,
        s.scope,
        source.label()
    )
}

pub const ALERTS: &[Alert] = &[
    Alert {
        name: "BotDown",
        pack: Pack::Bot,
        group: Group::Bot,
        component: "bot",
        production_only: false,
        unit: Unit::None,
        levels: &[Level {
            severity: Severity::Critical,
            threshold: "",
            hold: "2m",
        }],
        needs: &[],
        // One series a pod while there is one, and one without `pod` when all are gone. A monitor whose pods were never
        // scraped is no bot that went down; and a day after the last scrape the alert keeps itself firing.
        expr: |s| {
            let (up, scope, silent) = (metrics::BOT_UP.name, &s.scope, silent(s));
            format!(
                "{up}{{{scope}}} == 0 or {silent}up{{{scope}}} == 0 or absent(up{{{scope}}}) and on () \
                 (count(last_over_time(up{{{scope}}}[1d])) or count(ALERTS{{alertname=\"BotDown\",alertstate=\"firing\",{scope}}}))"
            )
        },
        summary: "Bot {monitor} is down ({environment})",
        description: "The bot has not been running or not answering for {for}: {pod}.",
    },
    Alert {
        name: "BotDisconnected",
        pack: Pack::Bot,
        group: Group::Bot,
        component: "bot",
        production_only: false,
        unit: Unit::None,
        levels: &[Level {
            severity: Severity::Warning,
            threshold: "",
            hold: "1m",
        }],
        needs: &[Source::Health, Source::BotMetrics],
        // Of a bot that runs: one that is down has no connection either, and BotDown says so, but later than this would.
        // What a bot's own metrics say ends when the bot does; and they may have labels of their own.
        expr: |s| {
            let (connected, up) = (s.series(&metrics::BOT_CONNECTED), metrics::BOT_UP.name);
            let runs = match (s.reads(Source::Health), s.reads(Source::BotMetrics)) {
                (true, false) => format!(" and {up}{{{}}} == 1", s.scope),
                (true, true) => format!(" and on (namespace, rosey_monitor, pod) {up}{{{}}} == 1", s.scope),
                (false, _) => String::new(),
            };
            format!("{connected} == 0{runs}")
        },
        summary: "Bot {monitor} is disconnected from its chat server ({environment})",
        description: "The bot runs and has had no connection to its chat server for {for}: {pod}.",
    },
    Alert {
        name: "HighResponseTime",
        pack: Pack::Bot,
        group: Group::Bot,
        component: "bot",
        production_only: false,
        unit: Unit::Milliseconds,
        levels: &[Level {
            severity: Severity::Warning,
            threshold: "2000",
            hold: "5m",
        }],
        needs: &[Source::Health],
        expr: |s| {
            format!(
                "{}{{{}}} > {}",
                metrics::BOT_RESPONSE_TIME_MS.name,
                s.scope,
                s.threshold
            )
        },
        summary: "Bot {monitor} answers slowly ({environment})",
        description: "The response time has been above {threshold} for {for}; it is {value} on {pod}.",
    },
    Alert {
        name: "HighMemoryUsage",
        pack: Pack::Bot,
        group: Group::Bot,
        component: "bot",
        production_only: false,
        unit: Unit::Bytes,
        levels: &[Level {
            severity: Severity::Warning,
            threshold: "500Mi",
            hold: "10m",
        }],
        needs: &[Source::Health],
        expr: |s| format!("{}{{{}}} > {}", metrics::BOT_MEMORY_BYTES.name, s.scope, s.threshold),
        summary: "Bot {monitor} uses much memory ({environment})",
        description: "The bot has used more than {threshold} of memory for {for}; it is {value} on {pod}.",
    },
    Alert {
        name: "NoUsersInChannel",
        pack: Pack::Bot,
        group: Group::Bot,
        component: "bot",
        production_only: true,
        unit: Unit::Count,
        levels: &[Level {
            severity: Severity::Warning,
            threshold: "1",
            hold: "15m",
        }],
        needs: &[Source::Health, Source::BotMetrics],
        expr: |s| format!("{} < {}", s.series(&metrics::BOT_USER_COUNT), s.threshold),
        summary: "The channel of bot {monitor} is empty ({environment})",
        description: "The channel has had fewer than {threshold} users for {for}; it has {value}, says {pod}.",
    },
    Alert {
        name: "HighErrorRate",
        pack: Pack::Bot,
        group: Group::Errors,
        component: "bot",
        production_only: false,
        unit: Unit::PerSecond,
        levels: &[Level {
            severity: Severity::Warning,
            threshold: "0.1",
            hold: "5m",
        }],
        needs: &[Source::BotMetrics, Source::Logs],
        // Summed over the types: ten types with a little each are as bad as one with much.
        expr: |s| {
            let rate = |errors: &str| {
                format!(
                    "sum without (error_type) (rate({errors}{{{}}}[{}]))",
                    s.scope,
                    s.range(300)
                )
            };
            format!("{} > {}", s.spelled(&metrics::BOT_ERROR_COUNT_TOTAL, rate), s.threshold)
        },
        summary: "Bot {monitor} meets many errors ({environment})",
        description: "The bot has met more than {threshold} errors a second for {for}; it is {value} on {pod}.",
    },
    Alert {
        name: "CriticalError",
        pack: Pack::Bot,
        group: Group::Errors,
        component: "bot",
        production_only: false,
        unit: Unit::None,
        levels: &[Level {
            severity: Severity::Critical,
            threshold: "",
            hold: "",
        }],
        needs: &[Source::BotMetrics, Source::Logs],
        // increase() needs two samples, and a client library creates the series with its first error, also after a restart of
        // the bot. So a series that is new, or has another value than it ended with, counts too: where the bot's metrics were read
        // in the hour that its end is looked for in. (An exporter put beside a bot that had errors long ago tells nobody.)
        // Ours alone: no dialect says which errors are critical.
        expr: |s| {
            let (scope, range) = (&s.scope, s.range(60));
            let read = metrics::EXPORTER_SOURCE_UP.name;
            let source = match (s.reads(Source::BotMetrics), s.reads(Source::Logs)) {
                (true, true) => "=~\"metrics|logs\"",
                (false, true) => "=\"logs\"",
                (_, false) => "=\"metrics\"",
            };
            let errors = format!(
                "{}{{{scope},error_type=\"critical\"}}",
                metrics::BOT_ERROR_COUNT_TOTAL.name
            );
            format!(
                "increase({errors}[{range}]) > 0 or (({errors} > 0) unless {errors} == last_over_time({errors}[1h] offset {range})) \
                 and on (namespace, rosey_monitor, pod) (max_over_time({read}{{{scope},source{source}}}[1h] offset {range}) == 1)"
            )
        },
        summary: "Bot {monitor} met a critical error ({environment})",
        description: "The bot counted an error of type critical: {pod}. Its log says more.",
    },
];
