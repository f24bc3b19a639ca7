//! `edgerec fleet rollout`: a rule set reaches the fleet in steps, each only after those before it are
//! well.
//!
//! What is published for the fleet reaches all boxes at once, so the first ones get the rules as
//! documents of their own: the new rules with the box's own ones laid over them, which decides as both
//! layers together will. At last the rules are published for all, and then the boxes that were first
//! get back what they had for themselves, or an empty rule set. If a box is not well, everything that
//! was published is taken back the same way, under higher revisions.
//!
//! Invariants
//! 1. What is to be published stands in the [`book`] before: after a kill at any instant the same
//!    command goes on, and `--back` takes everything back.
//! 2. Nothing is published twice: what is there already, by its content, is left alone.
//! 3. A box whose own rules are not known (it has some that the broker has lost) gets nothing of its
//!    own: it waits for the last step.
//! 4. Where a box holds newer rules for all than the broker has, nothing begins: they could not be
//!    taken back.
//!
//! What the old rules have and the new ones have not stays in force on the first boxes until the last
//! step: a rule set can be laid over another, not take anything away.

mod book;
mod crew;
mod tell;

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::fleet::document::{Press, There, read, revision, revision_for};
use crate::cli::fleet::rollout::book::{Book, BookFile, Member, Stage};
use crate::cli::fleet::rollout::crew::Crew;
use crate::cli::fleet::rollout::tell::Teller;
use crate::cli::fleet::scene::Scene;
use crate::cli::fleet::{Fleet, Rollout};
use crate::cli::outcome::Failure;
use crate::domain::fleet::overlay::{content, left_behind, overlaid};
use crate::domain::fleet::rollout::groups;
use crate::domain::rule_set::RuleSet;

/// Rolls a rule set out, goes on with it, or takes it back.
///
/// # Errors
/// It has faults, the broker is lost, or it was taken back because a box is not well.
pub(super) async fn rollout(
    fleet: &Fleet<'_>,
    asked: &Rollout,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let press = Press::new(fleet, &asked.signing)?;
    let file = BookFile::beside(&asked.file);
    let under_way = file.load()?;
    // To take a rollout back nobody needs its file any more.
    let wanted = match &under_way {
        Some(book) if asked.back => book.wanted.clone(),
        None if asked.back => {
            let what = format!("no rollout of {} is under way", asked.file.display());
            return Err(Failure::Usage(what));
        }
        _ => read(&asked.file)?,
    };
    let mut teller = Teller::new(asked.json, out);
    let rules = [fleet.topics.config(None), fleet.topics.config(Some("+"))];
    let scene = Scene::open(fleet, &rules).await?;
    for unreadable in scene.unreadable() {
        note(&mut teller, unreadable.text().unwrap_or_default())?;
    }
    let book = match under_way {
        Some(book) => go_on(book, fleet, &wanted, &press, &mut teller)?,
        None => match plan(&scene, asked, &wanted, &press, &mut teller)? {
            Some(book) => book,
            None => {
                return teller
                    .event("these rules are published already", &json!({"event": "there"}));
            }
        },
    };
    tell_plan(&book, &mut teller)?;
    let spread = book.wanted["apply"]["within_s"].as_u64().unwrap_or(0);
    let within = Duration::from_secs(spread.saturating_add(asked.within.into()));
    let hold = Duration::from_secs(asked.hold.into());
    let mut crew = Crew { scene, press, book, file: &file, teller, within, hold };
    let ended = tokio::select! {
        // Looked at first: it is listened for before anything is told.
        biased;
        () = told_to_end() => Err(Failure::failed("interrupted")),
        ended = crew.work(asked.back) => ended,
    };
    match ended {
        // What went wrong leaves the fleet in the middle.
        Err(Failure::Failed(why)) if file.load().is_ok_and(|book| book.is_some()) => {
            let how = "the rollout stands where it is: the same command goes on with it, and with \
                       --back takes it back";
            Err(Failure::failed(format!("{why}; {how}")))
        }
        ended => ended,
    }
}

/// A rollout of the same rules that is under way.
fn go_on(
    book: Book,
    fleet: &Fleet<'_>,
    wanted: &Value,
    press: &Press<'_>,
    teller: &mut Teller<'_>,
) -> Result<Book, Failure> {
    if book.fleet != fleet.mqtt.fleet || content(&book.wanted) != content(wanted) {
        let what = "a rollout of other rules is under way from this file: finish it with the file \
                    as it was, or take it back with --back";
        return Err(Failure::Usage(what.to_owned()));
    }
    if book.signed && !press.signs() {
        let what = "the rollout that is under way is signed: --sign-key is missing";
        return Err(Failure::Usage(what.to_owned()));
    }
    teller.event("goes on with the rollout that is under way", &json!({"event": "goes_on"}))?;
    Ok(book)
}

/// Which boxes get the rules when; `None`: they are published already.
fn plan(
    scene: &Scene<'_>,
    asked: &Rollout,
    wanted: &Value,
    press: &Press<'_>,
    teller: &mut Teller<'_>,
) -> Result<Option<Book>, Failure> {
    let before = scene.published(None)?;
    scene.check_signature(None, press)?;
    if let Some(id) = scene.ahead_of(before.as_ref().map_or(0, revision)) {
        let what = format!("{id} has fleet rules that the broker has lost: push those first");
        return Err(Failure::failed(what));
    }
    let there = There { set: before.as_ref(), held: 0 };
    let Some(next) = revision_for(wanted, there, press.signs())? else { return Ok(None) };
    let mut wanted = wanted.clone();
    wanted["revision"] = json!(next);
    let online = scene.online();
    if online.is_empty() {
        return Err(Failure::failed("no box of the fleet is online"));
    }
    let sizes = groups(online.len(), asked.canary, asked.step);
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for id in online {
        let live = scene.live(&id);
        match scene.own(&id) {
            Some(own) => first.push(Member { id, own, live }),
            None => rest.push(Member { id, own: None, live }),
        }
    }
    if first.is_empty() {
        let what =
            "no box can try the rules first: what the boxes have for themselves is not known";
        return Err(Failure::failed(what));
    }
    if first.len() < sizes[0] {
        let (few, asked) = (first.len(), sizes[0]);
        let words = format!(
            "only {few} of {asked} boxes can try the rules first: what the others have for \
             themselves is not known"
        );
        note(teller, &words)?;
    }
    // Boxes without streams would prove little; among the others chance decides, the same each time.
    first.sort_by_cached_key(|member| (member.live.is_empty(), lot(&member.id, &wanted)));
    let mut first = first.into_iter();
    let groups: Vec<Vec<Member>> =
        sizes.into_iter().map(|size| first.by_ref().take(size).collect()).collect();
    let groups: Vec<_> = groups.into_iter().filter(|group: &Vec<_>| !group.is_empty()).collect();
    rest.extend(first);
    press.text(&wanted, next, None)?;
    for member in groups.iter().flatten() {
        scene.check_signature(Some(&member.id), press)?;
        let set = staged(&wanted, member);
        check(&set, &member.id)?;
        press.text(&set, u64::MAX, Some(&member.id))?;
    }
    let (fleet, signed) = (scene.fleet_name().to_owned(), press.signs());
    Ok(Some(Book { fleet, wanted, signed, before, groups, rest, stage: Stage::Group(0) }))
}

/// What a box gets before all do.
fn staged(wanted: &Value, member: &Member) -> Value {
    member.own.as_ref().map_or_else(|| content(wanted), |own| overlaid(wanted, own))
}

/// Together the rules may have more than one document may.
fn check(set: &Value, id: &str) -> Result<(), Failure> {
    let mut set = set.clone();
    set["revision"] = json!(1);
    RuleSet::parse(set.to_string().as_bytes()).map(drop).map_err(|faults| {
        Failure::failed(format!("with its own rules {id} could not take them:\n{faults}"))
    })
}

/// A number that chance gives a box for these rules.
fn lot(id: &str, wanted: &Value) -> [u8; 32] {
    Sha256::new().chain_update(id).chain_update(wanted.to_string()).finalize().into()
}

fn tell_plan(book: &Book, teller: &mut Teller<'_>) -> Result<(), Failure> {
    let sizes: Vec<usize> = book.groups.iter().map(Vec::len).collect();
    let steps = sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let rest = book.rest.len();
    let stay = book.before.as_ref().map_or_else(Vec::new, |old| left_behind(old, &book.wanted));
    let event = json!({"event": "plan", "revision": book.wanted["revision"], "groups": sizes,
        "rest": rest, "stay_until_all": stay});
    let words = format!("{steps} boxes one after the other, then all ({rest} more are online)");
    teller.event(&words, &event)?;
    if stay.is_empty() {
        return Ok(());
    }
    let words = format!("until the last step these old entries stay in force: {}", stay.join(", "));
    note(teller, &words)
}

/// Something that the operator should know.
fn note(teller: &mut Teller<'_>, words: &str) -> Result<(), Failure> {
    teller.event(words, &json!({"event": "note", "note": words}))
}

/// Waits for Ctrl-C, or to be asked to end.
async fn told_to_end() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
