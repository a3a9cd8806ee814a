//! Medians and percentiles.

/// The value below which `share` (0 to 1) of `values` lie; sorts them. 0 when there are none.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = ((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or_default()
}

/// The middle one of `values`; sorts them.
pub fn median(values: &mut [f64]) -> f64 {
    percentile(values, 0.5)
}
