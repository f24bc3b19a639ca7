//! One rule set laid over another as JSON, the way a box lays its layers: an entry of the upper set
//! takes the place of the lower one's of the same template name, pattern or stream key. Both sets
//! are known to be right ([`RuleSet::parse`](crate::domain::rule_set::RuleSet::parse)).

use serde_json::{Map, Value, json};

use crate::domain::rule_set::APP_DEFAULT;

/// The lists of a rule set.
const LISTS: [&str; 4] = ["templates", "rules", "sources", "callbacks"];
/// What is not content: the number of a document and for whom it was signed.
const BESIDE_CONTENT: [&str; 4] = ["revision", "fleet", "box", "expires"];

/// What a rule set says, whatever its revision and for whomever it was signed.
#[must_use]
pub fn content(set: &Value) -> Value {
    let mut content = set.clone();
    if let Some(members) = content.as_object_mut() {
        for name in BESIDE_CONTENT {
            members.remove(name);
        }
    }
    content
}

/// The content of `set`; live sessions take it as `how` says.
#[must_use]
pub fn applied_as(set: &Value, how: &Value) -> Value {
    let mut set = content(set);
    if let Some(members) = set.as_object_mut() {
        members.remove("apply");
        members.extend(how.get("apply").map(|apply| ("apply".to_owned(), apply.clone())));
    }
    set
}

/// The content of `above` over that of `below`; live sessions take it as `below` says.
#[must_use]
pub fn overlaid(below: &Value, above: &Value) -> Value {
    let mut laid = Map::new();
    if let Some(apply) = below.get("apply") {
        laid.insert("apply".to_owned(), apply.clone());
    }
    for list in LISTS {
        let upper = entries(above, list);
        let names: Vec<String> = upper.iter().map(|entry| name_of(list, entry)).collect();
        let covered = |entry: &&Value| names.contains(&name_of(list, entry));
        let lower = entries(below, list).iter().filter(|entry| !covered(entry));
        laid.insert(list.to_owned(), lower.chain(upper).cloned().collect());
    }
    Value::Object(laid)
}

/// Names of what `old` has and `new` has not: laid over `old`, `new` does not take it away.
#[must_use]
pub fn left_behind(old: &Value, new: &Value) -> Vec<String> {
    let of = |list: &'static str| {
        let kept: Vec<String> = entries(new, list).iter().map(|e| name_of(list, e)).collect();
        let names = entries(old, list).iter().map(move |entry| name_of(list, entry));
        names.filter(move |name| !kept.contains(name)).map(move |name| format!("{list} {name}"))
    };
    // Of templates only the rules that name them matter.
    LISTS[1..].iter().flat_map(|list| of(list)).collect()
}

/// A rule set that says nothing.
#[must_use]
pub fn nothing() -> Value {
    json!({"templates": [], "rules": []})
}

fn entries<'a>(set: &'a Value, list: &str) -> &'a [Value] {
    set[list].as_array().map_or(&[], Vec::as_slice)
}

/// What an entry of a list is told from others by.
fn name_of(list: &str, entry: &Value) -> String {
    let text = |name: &str, default: &'static str| {
        entry[name].as_str().map_or_else(|| default.to_owned(), ToOwned::to_owned)
    };
    if list == "templates" {
        return text("TemplateName", "");
    }
    let (domain, app) = (text("DomainName", "").to_lowercase(), text("AppName", APP_DEFAULT));
    let stream = if list == "callbacks" { String::new() } else { text("StreamName", "") };
    json!([domain, app, stream]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::matching::{Layer, RuleTable};
    use crate::domain::rule_set::RuleSet;
    use crate::domain::stream_key::StreamKey;

    fn set(rules: &[(&str, &str)], templates: &[(&str, &str)]) -> Value {
        let template =
            |(name, format): &(&str, &str)| json!({"TemplateName": name, (*format): {"Enable": 1}});
        let rule = |(stream, template): &(&str, &str)| json!({"DomainName": "", "StreamName": stream, "TemplateName": template});
        json!({"revision": 1, "rules": rules.iter().map(rule).collect::<Vec<_>>(),
            "templates": templates.iter().map(template).collect::<Vec<_>>()})
    }

    fn parsed(mut set: Value) -> RuleSet {
        set["revision"] = json!(1);
        RuleSet::parse(set.to_string().as_bytes()).expect("right")
    }

    #[test]
    fn laid_over_the_old_rules_it_decides_as_the_new_ones_below_the_boxs_own() {
        let old = set(&[("", "all"), ("gate", "all")], &[("all", "FlvParam")]);
        let new = set(
            &[("", "all"), ("gate", "gate"), ("hall", "gate")],
            &[("all", "HlsParam"), ("gate", "Mp4Param")],
        );
        let mut own =
            set(&[("hall", "own"), ("yard", "gate")], &[("own", "AacParam"), ("gate", "FlvParam")]);
        // The same pattern, written in another way.
        own["rules"][0]["AppName"] = json!("live");
        let staged = parsed(overlaid(&new, &own));
        let (old, new, own) = (parsed(old), parsed(new), parsed(own));
        let now = RuleTable::new([(Layer::Fleet, &old), (Layer::Box, &staged)]);
        let then = RuleTable::new([(Layer::Fleet, &new), (Layer::Box, &own)]);
        for stream in ["gate", "hall", "yard", "other"] {
            let key = StreamKey::new("d", "live", stream).expect("a key");
            let (now, then) = (now.resolve(&key), then.resolve(&key));
            assert!(now.same_content(&then), "{stream}: {now:?} and then {then:?}");
        }
    }

    #[test]
    fn a_set_is_taken_as_another_one_says() {
        let own = json!({"revision": 3, "rules": [], "apply": {"mode": "restart"}});
        let how = json!({"apply": {"mode": "next_start"}});
        assert_eq!(applied_as(&own, &how), json!({"rules": [], "apply": {"mode": "next_start"}}));
        assert_eq!(applied_as(&own, &nothing()), json!({"rules": []}));
    }

    #[test]
    fn what_only_the_old_rules_have_is_told() {
        let old = set(&[("", "all"), ("gate", "all")], &[("all", "FlvParam")]);
        let new = set(&[("", "new")], &[("new", "FlvParam")]);
        assert_eq!(left_behind(&old, &new), [r#"rules ["","live","gate"]"#]);
        assert_eq!(left_behind(&new, &old), [""; 0]);
        assert_eq!(content(&parsed_back(&old)), content(&old));
    }

    fn parsed_back(set: &Value) -> Value {
        let mut signed = set.clone();
        signed["revision"] = json!(7);
        signed["expires"] = json!(1_900_000_000);
        signed
    }
}
