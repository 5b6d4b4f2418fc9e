//! A person's file, edited at the span: what is not meant stays as it was written, comments and order included.

use super::read_application;
use crate::core::yaml::{self, Limits};

/// Takes the policy out of an `app.yaml`. Its overrides stay: without a policy they say nothing, and whoever reverts the
/// change has both again.
///
/// # Errors
///
/// Why it cannot be done for a person: the file is not valid, names no policy, or is not valid without it.
pub fn without_policy(file: &str, text: &str) -> Result<String, String> {
    let told = |problems: Vec<crate::core::problem::Problem>| {
        problems.first().map_or_else(|| "it is not valid".to_owned(), ToString::to_string)
    };
    let before = read_application(file, text.as_bytes()).map_err(told)?.value;
    if before.policy.is_none() {
        return Err(format!("{} has no policy: nothing of it is staged", before.name));
    }
    let documents = yaml::parse(file, text.as_bytes(), &Limits::SETTINGS).map_err(|problem| problem.to_string())?;
    let entry = documents.first().and_then(|document| document.get("spec")?.entry("policy"));
    let entry = entry.ok_or("its policy is not where it is looked for")?;
    let edited = cut(text, entry).ok_or("its policy is written in several lines: take it out by hand")?;
    let after = read_application(file, edited.as_bytes()).map_err(told)?.value;
    let meant = super::Application { policy: None, ..before };
    if after == meant { Ok(edited) } else { Err("more than its policy would go: take it out by hand".to_owned()) }
}

/// Cuts an entry out of a map: its line, or in braces what stands between the commas.
fn cut(text: &str, entry: &yaml::Entry) -> Option<String> {
    let (key, value) = (entry.key_span, entry.value.span);
    if key.line != value.line {
        return None;
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let at = usize::try_from(key.line).ok()?.checked_sub(1)?;
    let line = *lines.get(at)?;
    let place = |column: u32| -> Option<usize> {
        let column = usize::try_from(column).ok()?.checked_sub(1)?;
        line.char_indices().map(|(index, _)| index).chain([line.len()]).nth(column)
    };
    let (start, end) = (place(key.column)?, place(value.column + value.length)?);
    let (head, tail) = (line.get(..start)?, line.get(end..)?);
    let line = match (head.trim().is_empty(), tail.trim_start().strip_prefix(',')) {
        (true, None) => String::new(),
        (_, Some(tail)) => format!("{head}{}", tail.trim_start_matches(' ')),
        (false, None) => {
            let head = head.trim_end();
            format!("{}{tail}", head.strip_suffix(',').unwrap_or(head))
        }
    };
    let rest = lines.get(at + 1..)?.concat();
    Some(format!("{}{line}{rest}", lines.get(..at)?.concat()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: locktender.dev/v1alpha1\nkind: Application\nmetadata: {name: checkout}\n";

    fn edited(spec: &str) -> Result<String, String> {
        let text = without_policy("apps/checkout/app.yaml", &format!("{HEAD}{spec}"))?;
        Ok(text.strip_prefix(HEAD).unwrap().to_owned())
    }

    #[test]
    fn only_the_policy_goes() {
        let block = "spec:\n  # Ours.\n  namespace: shop   # here\n  policy: two   # slowly\n  drift: report\n";
        assert_eq!(edited(block).unwrap(), block.replace("  policy: two   # slowly\n", ""));
        assert_eq!(edited("spec: {namespace: shop, policy: two}\n").unwrap(), "spec: {namespace: shop}\n");
        assert_eq!(edited("spec: {policy: \"two\", namespace: shop}\n").unwrap(), "spec: {namespace: shop}\n");
        let between = "spec: {namespace: shop, policy: two, drift: report}  # all\n";
        assert_eq!(edited(between).unwrap(), "spec: {namespace: shop, drift: report}  # all\n");
    }

    #[test]
    fn what_cannot_be_done_is_told() {
        assert_eq!(edited("spec: {namespace: shop}\n").unwrap_err(), "checkout has no policy: nothing of it is staged");
        assert!(edited("spec: {policy: 1.2.3/4}\n").is_err(), "it is not valid as it is");
    }

    #[test]
    fn what_overrides_say_stays_for_whoever_takes_it_back() {
        let shared =
            "spec: {namespace: shop, policy: two, overrides: {workloads: {checkout: {unitReplicas: {dca: 2}}}}}\n";
        assert_eq!(edited(shared).unwrap(), shared.replace("policy: two, ", ""));
        let block =
            "spec:\n  policy: two\n  overrides:\n    workloads:\n      checkout: {unitReplicas: {dca: 2}}  # of ten\n";
        assert_eq!(edited(block).unwrap(), block.replace("  policy: two\n", ""));
    }
}
