//! OneHotEncoder: a vector of zeros with a one where the category is.

use super::assembler::MIN_SPARSE;
use super::directory::Stage;
use super::plan::{Form, Kind, Plan, Shape, pairs};
use super::table::{Table, check_width};
use super::vector::{Block, Place, Step};
use crate::error::{Error, Result};

#[derive(Debug)]
struct Encoder {
    name: String,
    place: Place,
    column: usize,
    /// How many categories there were.
    categories: usize,
    /// How many numbers the vectors have.
    width: usize,
    keeps_invalid: bool,
    is_sparse: bool,
}

pub(super) fn add(plan: &mut Plan, stage: &Stage) -> Result<()> {
    let keeps_invalid = stage.choice("handleInvalid", &[("error", false), ("keep", true)])?;
    let drops_last = stage.flag("dropLast")?;
    let sizes = Table::read(stage)?.integers("categorySizes")?;
    for (at, name, output) in pairs(plan, stage)? {
        let categories = sizes.get(at).and_then(|size| usize::try_from(*size).ok()).filter(|size| *size > 0);
        let categories = categories.ok_or_else(|| {
            stage.fault(format_args!("there are no categories for column {name}; save the model again"))
        })?;
        // As `OneHotEncoderModel.getConfigedCategorySizes` has it.
        let width = categories + usize::from(keeps_invalid) - usize::from(drops_last);
        check_width(stage, width)?;
        let place = plan.number(stage, &name)?;
        let is_sparse = width > MIN_SPARSE;
        let column = plan.make(stage, &output, Kind::Vector(Shape { width, is_sparse, form: Form::Sparse }))?;
        plan.push(Encoder { name, place, column, categories, width, keeps_invalid, is_sparse });
    }
    Ok(())
}

impl Step for Encoder {
    fn run(&self, block: &mut Block<'_>) -> Result<()> {
        block.make(self.column, |block, out, dropped| {
            let rows = block.numbers(self.place).iter().zip(dropped.iter());
            if self.is_sparse {
                let out = out.no_vectors();
                for (value, dropped) in rows {
                    // A vector of NULL.
                    if value.is_nan() {
                        out.indices.extend(0..self.width as u32);
                        out.values.resize(out.indices.len(), f64::NAN);
                    } else if let Some(index) = self.index(*value, *dropped)? {
                        out.indices.push(index as u32);
                        out.values.push(1.0);
                    }
                    out.end_row();
                }
                return Ok(());
            }
            let out = out.zeros(block.rows * self.width);
            for (row, (value, dropped)) in rows.enumerate() {
                if value.is_nan() {
                    out.iter_mut().skip(row).step_by(block.rows).for_each(|out| *out = f64::NAN);
                } else if let Some(index) = self.index(*value, *dropped)? {
                    out[index * block.rows + row] = 1.0;
                }
            }
            Ok(())
        })
    }
}

impl Encoder {
    /// Where the one is, if it is anywhere.
    fn index(&self, value: f64, dropped: bool) -> Result<Option<usize>> {
        let index = if value >= 0.0 && value < self.categories as f64 {
            value as usize
        } else if self.keeps_invalid {
            self.categories
        } else if dropped {
            return Ok(None);
        } else {
            return Err(Error::violated(format!(
                "column {}: {value} is not below the {} categories that were there when the model was trained, and the \
                 model's OneHotEncoder refuses it; leave such rows out, or setHandleInvalid(\"keep\") when training",
                self.name, self.categories
            )));
        };
        Ok((index < self.width).then_some(index))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::about::Column;
    use super::*;

    /// The vectors, row by row.
    fn encode(keeps_invalid: bool, drops_last: bool, numbers: &[f64]) -> Result<Vec<Vec<f64>>> {
        let mut made = Vec::new();
        for is_sparse in [false, true] {
            let width = 3 + usize::from(keeps_invalid) - usize::from(drops_last);
            let (name, place) = ("c".to_owned(), Place::Input(0));
            let encoder = Encoder { name, place, column: 0, categories: 3, width, keeps_invalid, is_sparse };
            let columns = [Column::Numbers(numbers)];
            let mut block = Block::new(&columns, 1);
            block.go_to(0, numbers.len());
            encoder.run(&mut block)?;
            let mut rows = vec![vec![0.0; width]; numbers.len()];
            for (at, row) in rows.iter_mut().enumerate() {
                block.vectors(0).each(at, |index, value| row[index] = value);
            }
            made.push(rows);
        }
        assert_eq!(format!("{:?}", made[0]), format!("{:?}", made[1]));
        Ok(made.swap_remove(0))
    }

    #[test]
    fn the_last_category_and_the_unknown_one_have_a_place_or_not() {
        let numbers = [0.0, 2.0];
        assert_eq!(encode(false, true, &numbers).unwrap(), [[1.0, 0.0], [0.0, 0.0]]);
        assert_eq!(encode(false, false, &numbers).unwrap(), [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]);
        let numbers = [2.0, 3.0, -1.0];
        assert_eq!(encode(true, true, &numbers).unwrap(), [[0.0, 0.0, 1.0], [0.0; 3], [0.0; 3]]);
        let unknown = [0.0, 0.0, 0.0, 1.0];
        assert_eq!(encode(true, false, &numbers).unwrap(), [[0.0, 0.0, 1.0, 0.0], unknown, unknown]);
        assert!(encode(false, true, &[f64::NAN]).unwrap()[0].iter().all(|value| value.is_nan()));
    }

    #[test]
    fn an_unknown_category_is_refused() {
        let error = encode(false, true, &[3.0]).unwrap_err().to_string();
        assert!(error.starts_with("column c: 3 is not below the 3 categories"), "{error}");
    }
}
