//! A closing as a page that needs nothing else: to be looked at, printed and kept.

use std::fmt::Write as _;

use super::Outcome;
use super::closed::{Closed, Exact, Figures, Reconciled, Sums};
use super::report::{FIGURES, checks, headline};
use crate::observe::grouped;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
p{margin:.3rem 0}.quiet{opacity:.7}\
.scroll{overflow-x:auto;margin-bottom:1.2rem}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{padding:.25rem .6rem;border-bottom:1px solid #8884;text-align:right;white-space:nowrap}\
th:first-child,td:first-child,th.text,td:has(code),td.text{text-align:left}\
thead th{border-bottom:2px solid #8888;font-weight:600;white-space:normal;vertical-align:bottom}\
tr.total td{border-top:2px solid #8888;font-weight:600}\
pre{white-space:pre-wrap;font:13px ui-monospace,monospace}\
code{font:13px ui-monospace,monospace;overflow-wrap:anywhere;white-space:normal}\
.late{border-left:4px solid #c60;padding:.3rem .8rem}\
@page{size:A4 landscape;margin:1.5cm}\
@media print{body{margin:0;max-width:none;font-size:9pt}.scroll{overflow:visible}th,td{padding:.15rem .4rem}\
h2{break-after:avoid}table{break-inside:auto}tr{break-inside:avoid}}";

/// The page.
pub fn page(outcome: &Outcome) -> String {
    let closed = &outcome.closed;
    let title = format!("{} {}", closed.job, closed.date);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{}</h1>\n",
        escaped(&title),
        escaped(&title)
    );
    let _ = writeln!(page, "<p>{}.</p>", escaped(&headline(closed)));
    let _ = writeln!(
        page,
        "<p class=\"quiet\">From {} to {}; closed at {}, records waited for {} minutes after the day's end; {}.</p>",
        time(closed.day_start),
        time(closed.day_end),
        time(closed.closed_at),
        closed.lateness_seconds / 60,
        checks(closed)
    );
    late(&mut page, outcome);
    tables(&mut page, closed);
    for own in &closed.reconciled {
        reconciled(&mut page, own);
    }
    made_of(&mut page, closed);
    page.push_str("</body>\n</html>\n");
    page
}

fn late(page: &mut String, outcome: &Outcome) {
    if !outcome.differences.is_empty() {
        page.push_str("<p class=\"late\"><strong>It does not add up, and was not closed:</strong></p>\n<pre>");
        page.push_str(&escaped(&outcome.differences.join("\n")));
        page.push_str("</pre>\n");
    }
    for (day, rows) in &outcome.open {
        let rows = grouped(*rows);
        let _ = writeln!(page, "<p class=\"late\">{} is not closed and has {rows} rows.</p>", escaped(day));
    }
    if outcome.adjustments > 0 {
        let rows = grouped(outcome.adjustments);
        let _ = writeln!(
            page,
            "<p class=\"late\">{rows} rows came too late for this closing and are in no final table: \
                                they are in the adjustments.</p>"
        );
    }
    for (date, rows) in &outcome.late {
        let rows = grouped(*rows);
        let _ = writeln!(page, "<p class=\"late\">Found by this run: {rows} late rows of {}.</p>", escaped(date));
    }
}

fn tables(page: &mut String, closed: &Closed) {
    page.push_str("<h2>Final tables</h2>\n");
    let rows = closed.tables.iter().map(|table| {
        vec![
            escaped(&table.table),
            grouped(table.rows),
            grouped(table.files as u64),
            format!("<code>{}</code>", table.sha256),
        ]
    });
    table(page, &["table", "rows", "files", "sha256 of the rows"], rows.collect(), false);
}

fn reconciled(page: &mut String, own: &Reconciled) {
    let _ = writeln!(page, "<h2>{} from topic {}</h2>", escaped(&own.table), escaped(&own.topic));
    let _ = writeln!(
        page,
        "<p class=\"quiet\">records = without a value + dead letters + quarantined + landed; landed + brought forward \
         = outside the day + duplicates + kept. Read from {} at version {}{}.</p>",
        escaped(&own.landing),
        own.version,
        if own.by_offsets { "; records are counted by offsets, as the log no longer says more" } else { "" }
    );
    let mut head = vec!["partition", "from", "to"];
    head.extend(FIGURES.iter().map(|(name, _)| *name));
    let cells = |name: String, figures: &Figures| {
        let offset = |offset: Option<i64>| offset.map(|o| o.to_string()).unwrap_or_default();
        let mut cells = vec![name, offset(figures.from), offset(figures.to)];
        cells.extend(FIGURES.iter().map(|(_, of)| grouped(of(figures))));
        cells
    };
    let rows = own.partitions.iter().map(|(partition, figures)| cells(partition.to_string(), figures));
    table(page, &head, rows.chain([cells("all".into(), &own.total)]).collect(), true);
    if own.total.sums.is_empty() {
        return;
    }
    let cells = |partition: String, column: &str, sums: &Sums| {
        let sums = [sums.landed, sums.brought_forward, sums.outside, sums.duplicates, sums.kept];
        [escaped(column), partition].into_iter().chain(sums.map(grouped_sum)).collect::<Vec<_>>()
    };
    let mut rows = Vec::new();
    for (column, total) in &own.total.sums {
        let of_column = |(partition, figures): (&i32, &Figures)| {
            figures.sums.get(column).map(|sums| cells(partition.to_string(), column, sums))
        };
        rows.extend(own.partitions.iter().filter_map(of_column));
        rows.push(cells("all".into(), column, total));
    }
    let head = ["sum of", "partition", "landed", "brought forward", "outside the day", "duplicates", "kept"];
    table(page, &head, rows, false);
}

fn made_of(page: &mut String, closed: &Closed) {
    page.push_str("<h2>Made of</h2>\n");
    let mut rows = vec![
        vec!["content".to_owned(), String::new(), format!("<code>{}</code>", closed.content_sha256)],
        vec!["pipeline file".to_owned(), escaped(&closed.job), format!("<code>{}</code>", closed.pipeline_sha256)],
    ];
    let of = |what: &str, name: &str, value: &str| {
        vec![what.to_owned(), escaped(name), format!("<code>{}</code>", escaped(value))]
    };
    rows.extend(closed.models.iter().map(|(name, sha256)| of("model", name, sha256)));
    rows.extend(closed.lookups.iter().map(|(name, version)| of("table", name, version)));
    table(page, &["what", "name", "sha256 or version"], rows, false);
}

fn table(page: &mut String, head: &[&str], rows: Vec<Vec<String>>, has_total: bool) {
    page.push_str("<div class=\"scroll\"><table>\n<thead><tr>");
    for name in head {
        let class = if name.starts_with("sha256") || *name == "name" { " class=\"text\"" } else { "" };
        let _ = write!(page, "<th{class}>{name}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    let last = rows.len();
    for (row, cells) in rows.into_iter().enumerate() {
        page.push_str(if has_total && row + 1 == last { "<tr class=\"total\">" } else { "<tr>" });
        cells.iter().for_each(|cell| _ = write!(page, "<td>{cell}</td>"));
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
}

/// With commas between thousands.
fn grouped_sum(sum: Exact) -> String {
    let text = sum.to_string();
    let (sign, text) = text.split_at(usize::from(text.starts_with('-')));
    let (whole, part) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{part}")
}

fn time(time: chrono::DateTime<chrono::Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_have_commas() {
        for (units, scale, text) in [
            (0, 0, "0"),
            (-999, 0, "-999"),
            (1_000, 0, "1,000"),
            (-123_456_789, 0, "-123,456,789"),
            (123_456, 2, "1,234.56"),
        ] {
            assert_eq!(grouped_sum(Exact { units, scale }), text);
        }
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
