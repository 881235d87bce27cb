//! VectorAssembler: numbers and vectors put side by side.

use super::directory::Stage;
use super::plan::{Form, Kind, Plan, Shape};
use super::table::check_width;
use super::vector::{Block, Data, MAX_DENSE, Place, Step};
use crate::error::{Error, Result};

/// Vectors of more numbers than this are kept sparse where most of them come from sparse ones.
pub(super) const MIN_SPARSE: usize = 64;

/// What a stage does with a row that it has no number for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invalid {
    /// The call fails.
    Error,
    /// The row is not scored: its result is NaN.
    Skip,
    /// There is a number for it.
    Keep,
}

impl Invalid {
    /// What a stage is set to do.
    pub fn of(stage: &Stage) -> Result<Self> {
        stage.choice("handleInvalid", &[("error", Self::Error), ("skip", Self::Skip), ("keep", Self::Keep)])
    }
}

#[derive(Debug)]
struct Assembler {
    parts: Vec<Part>,
    invalid: Invalid,
    column: usize,
    is_sparse: bool,
}

#[derive(Debug)]
struct Part {
    name: String,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Number(Place),
    Vectors(usize, usize),
}

pub(super) fn add(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let invalid = Invalid::of(stage)?;
    let (mut parts, mut width, mut sparse) = (Vec::new(), 0_usize, 0_usize);
    for name in stage.inputs()? {
        let source = match plan.made(&name) {
            Some((column, Kind::Vector(shape))) => {
                width = width.saturating_add(shape.width);
                sparse = sparse.saturating_add(if shape.is_sparse { shape.width } else { 0 });
                Source::Vectors(column, shape.width)
            }
            _ => {
                width = width.saturating_add(1);
                Source::Number(plan.number(stage, &name)?)
            }
        };
        parts.push(Part { name, source });
        check_width(stage, width)?;
    }
    let is_sparse = width > MAX_DENSE || width > MIN_SPARSE && sparse > width / 2;
    let shape = Shape { width, is_sparse, form: Form::Compressed };
    let column = plan.make(stage, stage.text("outputCol")?, Kind::Vector(shape))?;
    plan.push(Assembler { parts, invalid, column, is_sparse });
    Ok(())
}

impl Step for Assembler {
    fn run(&self, block: &mut Block<'_>) -> Result<()> {
        block.make(self.column, |block, out, dropped| {
            if self.invalid != Invalid::Keep {
                self.parts.iter().try_for_each(|part| self.check(part, block, dropped))?;
            }
            match self.is_sparse {
                true => self.sparse(block, out),
                false => self.dense(block, out),
            }
            Ok(())
        })
    }
}

impl Assembler {
    /// Refuses or drops rows that lack a number. Of a vector only the first one is looked at: one that lacks all is
    /// what a one-hot encoder makes of nothing; NaN within a vector is a number to Spark.
    fn check(&self, part: &Part, block: &Block<'_>, dropped: &mut [bool]) -> Result<()> {
        let numbers = match part.source {
            Source::Number(place) => block.numbers(place),
            Source::Vectors(column, width) => {
                let vectors = block.vectors(column);
                for (row, dropped) in dropped.iter_mut().enumerate() {
                    let (mut count, mut all_missing) = (0, true);
                    vectors.each(row, |_, value| {
                        count += 1;
                        all_missing &= value.is_nan();
                    });
                    self.refuse(part, all_missing && count == width && width > 0, dropped)?;
                }
                return Ok(());
            }
        };
        // Without a condition several numbers fit into an instruction, and mostly none is missing.
        if !numbers.iter().fold(false, |is_missing, value| is_missing | value.is_nan()) {
            return Ok(());
        }
        numbers.iter().zip(dropped).try_for_each(|(value, dropped)| self.refuse(part, value.is_nan(), dropped))
    }

    fn refuse(&self, part: &Part, is_missing: bool, dropped: &mut bool) -> Result<()> {
        if is_missing && !*dropped {
            if self.invalid == Invalid::Error {
                return Err(Error::violated(format!(
                    "column {} is NULL or NaN, which the model's VectorAssembler refuses; give a number, put an \
                     Imputer before it, or setHandleInvalid(\"keep\") when training",
                    part.name
                )));
            }
            *dropped = true;
        }
        Ok(())
    }

    fn dense(&self, block: &Block<'_>, out: &mut Data) {
        let values = out.zeros(0);
        for part in &self.parts {
            match part.source {
                Source::Number(place) => values.extend_from_slice(block.numbers(place)),
                Source::Vectors(column, width) => match block.vectors(column) {
                    super::vector::Rows::Dense { values: part, .. } => values.extend_from_slice(part),
                    super::vector::Rows::Sparse(part) => {
                        let first = values.len();
                        values.resize(first + width * block.rows, 0.0);
                        for row in 0..block.rows {
                            let (indices, numbers) = part.row(row);
                            for (index, number) in indices.iter().zip(numbers) {
                                values[first + *index as usize * block.rows + row] = *number;
                            }
                        }
                    }
                },
            }
        }
    }

    fn sparse(&self, block: &Block<'_>, out: &mut Data) {
        let sparse = out.no_vectors();
        for row in 0..block.rows {
            let mut first = 0;
            let mut push = |at: usize, value: f64| {
                if value != 0.0 {
                    sparse.indices.push(at as u32);
                    sparse.values.push(value);
                }
            };
            for part in &self.parts {
                match part.source {
                    Source::Number(place) => {
                        push(first, block.numbers(place).get(row).copied().unwrap_or_default());
                        first += 1;
                    }
                    Source::Vectors(column, width) => {
                        block.vectors(column).each(row, |at, value| push(first + at, value));
                        first += width;
                    }
                }
            }
            sparse.end_row();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::about::Column;
    use super::*;

    #[test]
    fn rows_that_lack_a_number_are_refused_dropped_or_kept() {
        let numbers = [1.0, f64::NAN];
        let columns = [Column::Numbers(&numbers)];
        let assemble = |invalid, is_sparse| {
            let parts = vec![Part { name: "a".into(), source: Source::Number(Place::Input(0)) }];
            let mut block = Block::new(&columns, 1);
            block.go_to(0, 2);
            Assembler { parts, invalid, column: 0, is_sparse }.run(&mut block)?;
            let mut made = Vec::new();
            (0..2).for_each(|row| block.vectors(0).each(row, |_, value| made.push(value)));
            assert!(made[0] == 1.0 && made[1].is_nan() && made.len() == 2, "{made:?}");
            Ok::<_, Error>(block.dropped().to_vec())
        };
        for is_sparse in [false, true] {
            assert_eq!(assemble(Invalid::Keep, is_sparse).unwrap(), [false, false]);
            assert_eq!(assemble(Invalid::Skip, is_sparse).unwrap(), [false, true]);
            let error = assemble(Invalid::Error, is_sparse).unwrap_err().to_string();
            assert!(
                error.starts_with("column a is NULL or NaN, which the model's VectorAssembler refuses; "),
                "{error}"
            );
        }
    }
}
