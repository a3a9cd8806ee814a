//! Finds routes whose rules lead back to themselves.

use std::collections::HashSet;

/// Returns a circle: the names of routes of which each leads to the next one, and the last one to the first. `None` if
/// none of the routes in `starts` leads into a circle. `next` returns the routes to which a route leads.
pub fn circle<'n>(
    starts: impl IntoIterator<Item = &'n str>,
    next: impl Fn(&'n str) -> Vec<&'n str>,
) -> Option<Vec<&'n str>> {
    let mut done = HashSet::new();
    for start in starts {
        // The path from the start to the present route. Each entry has the routes that were not followed yet.
        let mut path = vec![(start, next(start))];
        while let Some((name, left)) = path.last_mut() {
            let Some(to) = left.pop() else {
                done.insert(*name);
                path.pop();
                continue;
            };
            if let Some(from) = path.iter().position(|(name, _)| *name == to) {
                return Some(path[from..].iter().map(|(name, _)| *name).collect());
            }
            if !done.contains(to) {
                path.push((to, next(to)));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn found(routes: &[(&'static str, &[&'static str])]) -> Option<Vec<&'static str>> {
        let leads: BTreeMap<_, _> = routes.iter().copied().collect();
        circle(leads.keys().copied(), |name| leads.get(name).map_or(Vec::new(), |to| to.to_vec()))
    }

    #[test]
    fn a_circle_is_found_and_a_diamond_is_none() {
        assert_eq!(found(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])]), None);
        assert_eq!(found(&[("a", &["a"])]), Some(vec!["a"]));
        assert_eq!(found(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]), Some(vec!["b", "c"]));
        assert_eq!(found(&[("a", &["gone"])]), None, "a route that does not exist leads nowhere");
    }
}
