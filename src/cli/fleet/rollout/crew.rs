//! The work of a rollout, stage after stage, each kept in the book before it begins.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::fleet::document::{Press, revision};
use crate::cli::fleet::rollout::book::{Book, BookFile, Member, Stage};
use crate::cli::fleet::rollout::tell::Teller;
use crate::cli::fleet::rollout::{note, staged};
use crate::cli::fleet::scene::Scene;
use crate::cli::outcome::Failure;
use crate::domain::fleet::overlay::{applied_as, content, nothing};
use crate::domain::fleet::rollout::{Standing, standing};

/// Boxes are looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who does it, and with what.
pub(super) struct Crew<'a> {
    pub(super) scene: Scene<'a>,
    pub(super) press: Press<'a>,
    pub(super) book: Book,
    pub(super) file: &'a BookFile,
    pub(super) teller: Teller<'a>,
    /// Boxes must be well within this time.
    pub(super) within: Duration,
    /// And must stay so for this long.
    pub(super) hold: Duration,
}

/// A box that has to be well under a revision of a layer.
struct Watched {
    member: Member,
    layer: &'static str,
    revision: u64,
}

/// What became of boxes that were waited for.
enum Verdict {
    Well,
    /// Not all are; why, in words.
    Ill(String),
}

/// What is made of boxes that are away when time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    /// They are not well: the rules may have done it.
    IsIll,
    /// They take the rules when they come.
    MayStay,
}

impl Crew<'_> {
    /// Does what is left to do, or takes back what was done.
    pub(super) async fn work(&mut self, back: bool) -> Result<(), Failure> {
        if back {
            return self.take_back("as asked").await;
        }
        loop {
            let verdict = match self.book.stage {
                Stage::Group(number) if number < self.book.groups.len() => {
                    let verdict = self.give_group(number).await?;
                    self.go_to(Stage::Group(number + 1), verdict)?
                }
                Stage::Group(_) => self.go_to(Stage::All, Verdict::Well)?,
                Stage::All => {
                    let verdict = self.give_all().await?;
                    self.go_to(Stage::Clearing, verdict)?
                }
                Stage::Clearing => return self.clear().await,
                Stage::Back { .. } => Some("it was being taken back".to_owned()),
            };
            if let Some(why) = verdict {
                self.take_back(&why).await?;
                return Err(Failure::Said(Failure::FAILED));
            }
        }
    }

    /// Goes on to the next stage if all is well; else says why not.
    fn go_to(&mut self, next: Stage, verdict: Verdict) -> Result<Option<String>, Failure> {
        match verdict {
            Verdict::Ill(why) => Ok(Some(why)),
            Verdict::Well => {
                self.book.stage = next;
                self.file.save(&self.book).map(|()| None)
            }
        }
    }

    async fn give_group(&mut self, number: usize) -> Result<Verdict, Failure> {
        let steps = self.book.groups.len() + 1;
        for at in 0..self.book.groups[number].len() {
            let member = &mut self.book.groups[number][at];
            let live = self.scene.live(&member.id);
            if self.scene.published(Some(&member.id)).ok() == Some(member.own.clone()) {
                member.live = live;
            }
        }
        self.file.save(&self.book)?;
        let group = self.book.groups[number].clone();
        let ids: Vec<String> = group.iter().map(|member| member.id.clone()).collect();
        self.teller.step(&format!("step {} of {steps}", number + 1), &ids)?;
        for member in &group {
            let there = self.scene.published(Some(&member.id)).ok();
            if !self.is_ours(member) && there != Some(member.own.clone()) {
                let what = format!("somebody has published rules for {} meanwhile", member.id);
                return Ok(Verdict::Ill(what));
            }
            let set = staged(&self.book.wanted, member);
            self.publish(Some(&member.id), &set).await?;
        }
        let watched = self.on_box_layer(&group);
        let before = self.book.groups[..number].concat();
        let before = self.on_box_layer(&before);
        self.wait(&watched, &before, self.hold, Away::IsIll).await
    }

    async fn give_all(&mut self) -> Result<Verdict, Failure> {
        let Ok(there) = self.scene.published(None) else {
            let what = "somebody has published what is no rule set for all meanwhile";
            return Ok(Verdict::Ill(what.to_owned()));
        };
        let ours = is_there(there.as_ref(), &self.book.wanted);
        if !ours && there.as_ref().map(revision) != self.book.before.as_ref().map(revision) {
            let newest = there.as_ref().map_or(0, revision);
            let what = format!("somebody has published revision {newest} for all meanwhile");
            return Ok(Verdict::Ill(what));
        }
        if !ours {
            for member in self.book.groups.iter_mut().flatten().chain(&mut self.book.rest) {
                member.live = self.scene.live(&member.id);
            }
            self.file.save(&self.book)?;
        }
        let first = self.book.groups.concat();
        let all: Vec<Member> = first.iter().chain(&self.book.rest).cloned().collect();
        let ids: Vec<String> = all.iter().map(|member| member.id.clone()).collect();
        let steps = self.book.groups.len() + 1;
        self.teller.step(&format!("step {steps} of {steps}, all boxes"), &ids)?;
        let wanted = self.book.wanted.clone();
        let revision = self.publish(None, &wanted).await?;
        let on_fleet = |member| Watched { member, layer: "fleet", revision };
        let watched: Vec<Watched> = all.into_iter().map(on_fleet).collect();
        let before = self.on_box_layer(&first);
        self.wait(&watched, &before, self.hold, Away::MayStay).await
    }

    /// The boxes that were first get back what they had for themselves.
    async fn clear(&mut self) -> Result<(), Failure> {
        let first = self.book.groups.concat();
        // Their sessions took the fleet's rules as those say, and know them already.
        let how = self.book.wanted.clone();
        self.give_back(&first, &how).await?;
        let watched = self.on_box_layer(&first);
        let verdict = self.wait(&watched, &[], Duration::ZERO, Away::MayStay).await?;
        self.file.remove()?;
        if let Verdict::Ill(why) = verdict {
            note(&mut self.teller, &format!("not every box has its own rules back yet: {why}"))?;
        }
        let revision = self.scene.readable(None).as_ref().map_or(0, revision);
        let words = format!("done: revision {revision} is published for all");
        self.teller.event(&words, &json!({"event": "done", "revision": revision}))
    }

    /// Everything that was published is as it was before, under higher revisions.
    async fn take_back(&mut self, why: &str) -> Result<(), Failure> {
        let words = format!("takes it back: {why}");
        self.teller.event(&words, &json!({"event": "takes_back", "why": why}))?;
        let groups = self.book.reached();
        let all = match self.book.stage {
            Stage::Group(_) => false,
            Stage::All | Stage::Clearing => true,
            Stage::Back { all, .. } => all,
        };
        self.book.stage = Stage::Back { groups, all };
        self.file.save(&self.book)?;
        let first = self.book.groups[..groups].concat();
        let ids: Vec<String> = first.iter().map(|member| member.id.clone()).collect();
        self.teller.step("back", &ids)?;
        // Only if what is there is ours: nobody else's rules are undone.
        let there = self.scene.readable(None).as_ref().map(content);
        if all && there == Some(content(&self.book.wanted)) {
            let before = self.book.before.as_ref().map_or_else(nothing, content);
            self.publish(None, &before).await?;
        }
        // At once: what they try is bad.
        self.give_back(&first, &nothing()).await?;
        let watched = self.on_box_layer(&first);
        let verdict = self.wait(&watched, &[], Duration::ZERO, Away::MayStay).await?;
        self.file.remove()?;
        let still = match verdict {
            Verdict::Well => String::new(),
            Verdict::Ill(why) => format!("; not every box says so yet: {why}"),
        };
        let words = format!("taken back: the old rules are published again{still}");
        self.teller.event(&words, &json!({"event": "taken_back", "why": why, "still": still}))
    }

    /// Boxes get what they had for themselves; live sessions take it as `how` says.
    async fn give_back(&mut self, first: &[Member], how: &Value) -> Result<(), Failure> {
        for member in first {
            let own = applied_as(&member.own.clone().unwrap_or_else(nothing), how);
            // What somebody else has published meanwhile stays.
            if self.is_ours(member) {
                self.publish(Some(&member.id), &own).await?;
            }
        }
        Ok(())
    }

    /// Whether what is published for a box is what it gets before all do.
    fn is_ours(&self, member: &Member) -> bool {
        let there = self.scene.readable(Some(&member.id));
        there.as_ref().map(content) == Some(content(&staged(&self.book.wanted, member)))
    }

    /// Publishes a rule set unless it is there; gives its revision.
    async fn publish(&mut self, box_id: Option<&str>, set: &Value) -> Result<u64, Failure> {
        let there = self.scene.published(box_id)?;
        let newest = there.as_ref().map_or(0, revision);
        if is_there(there.as_ref(), set) {
            return Ok(newest);
        }
        // Revisions only grow; the one of the file counts if it is higher.
        let next = revision(set).max(newest.saturating_add(1));
        let text = self.press.text(set, next, box_id)?;
        self.scene.publish(box_id, text).await?;
        Ok(next)
    }

    /// The boxes under what is published for each of them.
    fn on_box_layer(&self, members: &[Member]) -> Vec<Watched> {
        let watched = |member: &Member| {
            let revision = revision(&self.scene.readable(Some(&member.id))?);
            Some(Watched { member: member.clone(), layer: "box", revision })
        };
        members.iter().filter_map(watched).collect()
    }

    /// Waits until all boxes are well and have been for the time `hold`, and none of those `before`
    /// is broken.
    async fn wait(
        &mut self,
        boxes: &[Watched],
        before: &[Watched],
        hold: Duration,
        away: Away,
    ) -> Result<Verdict, Failure> {
        let deadline = Instant::now() + self.within;
        let mut well_since = None;
        loop {
            let look_at = Instant::now() + LOOK_EVERY;
            while self.scene.hear(look_at).await? {}
            let (mut waits, mut gone) = (Vec::new(), Vec::new());
            for watched in boxes {
                let stands = self.standing(watched);
                self.teller.stands(&watched.member.id, &stands)?;
                match stands {
                    Standing::Well | Standing::Broken(_) => {}
                    Standing::Away => gone.push(format!("{} is away", watched.member.id)),
                    Standing::Waits(why) => waits.push(format!("{} {why}", watched.member.id)),
                }
            }
            self.teller.draw()?;
            for watched in boxes.iter().chain(before) {
                if let Standing::Broken(why) = self.standing(watched) {
                    return Ok(Verdict::Ill(format!("{} {why}", watched.member.id)));
                }
            }
            if away == Away::IsIll || Instant::now() < deadline {
                waits.append(&mut gone);
            }
            if waits.is_empty() {
                let since = *well_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= hold {
                    return Ok(Verdict::Well);
                }
            } else {
                well_since = None;
                if Instant::now() >= deadline {
                    return Ok(Verdict::Ill(told(&waits)));
                }
            }
        }
    }

    fn standing(&self, watched: &Watched) -> Standing {
        let report = self.scene.report(&watched.member.id, watched.layer);
        standing(&report, watched.revision, &watched.member.live)
    }
}

/// Whether what is published is a rule set: its content, under its revision if it has one or a higher.
fn is_there(published: Option<&Value>, set: &Value) -> bool {
    let same = |there: &Value| content(there) == content(set) && revision(there) >= revision(set);
    published.is_some_and(same)
}

/// The first of several, and how many more there are.
fn told(waits: &[String]) -> String {
    match waits {
        [] => String::new(),
        [one] => one.clone(),
        [first, more @ ..] => format!("{first}, and {} more", more.len()),
    }
}
