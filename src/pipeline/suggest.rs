//! "Did you mean": the name that was probably meant.

/// How many names a remedy lists at most.
const LISTED: usize = 8;

/// How alike two names are that only end differently, such as `category` and `categories` (Jaro-Winkler).
const ALIKE: f64 = 0.9;

/// The candidate that `name` was probably meant to be, if one is near: by edit distance (at most a third of the name),
/// or because it begins the same.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let limit = (wanted.chars().count() / 3).max(1);
    let near = |c: &'a str| {
        let candidate = c.to_lowercase();
        let distance = strsim::damerau_levenshtein(&wanted, &candidate);
        // The last part of a dotted name is often all that somebody writes.
        let part =
            candidate.rsplit('.').next() == Some(wanted.as_str()) || wanted.rsplit('.').next() == Some(&candidate);
        let alike = wanted.len() > 4 && strsim::jaro_winkler(&wanted, &candidate) > ALIKE;
        (distance <= limit || part || alike).then_some((if part { 0 } else { distance }, c))
    };
    candidates.into_iter().filter_map(near).min().map(|(_, c)| c)
}

/// A remedy: the name that was probably meant, or what there is.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut candidates: Vec<&str> = candidates.into_iter().collect();
    candidates.sort_unstable();
    candidates.dedup();
    if let Some(meant) = closest(name, candidates.iter().copied()) {
        return Some(format!("did you mean `{meant}`?"));
    }
    let more = candidates.len().saturating_sub(LISTED);
    candidates.truncate(LISTED);
    let listed = candidates.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ");
    match (candidates.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(format!("there are {listed}")),
        (false, more) => Some(format!("there are {listed} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_near_name_wins() {
        let names = ["ad_id", "user_id", "ads.v1.AdImpression"];
        for (name, meant) in [
            ("adid", Some("ad_id")),
            ("AD_ID", Some("ad_id")),
            ("usr_id", Some("user_id")),
            ("AdImpression", Some("ads.v1.AdImpression")),
            ("score", None),
            ("user_ids_all", Some("user_id")),
        ] {
            assert_eq!(closest(name, names), meant, "{name}");
        }
    }

    #[test]
    fn without_a_near_name_the_remedy_lists_them() {
        assert_eq!(did_you_mean("zzz", ["b", "a"]).unwrap(), "there are `a`, `b`");
        let many: Vec<String> = (0..12).map(|i| format!("column_{i:02}")).collect();
        assert!(did_you_mean("zzz", many.iter().map(String::as_str)).unwrap().ends_with("and 4 more"));
        assert_eq!(did_you_mean("zzz", []), None);
    }
}
