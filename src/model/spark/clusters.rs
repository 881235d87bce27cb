//! KMeans: the nearest centre.

use arrow::array::Int32Array;

use super::directory::Stage;
use super::plan::Plan;
use super::predictor::{Loaded, Predictor};
use super::table::{Table, column};
use super::vector::{BLOCK_ROWS, Block, Rows};
use crate::error::{Error, Result};

/// The smallest step from 1.0 as Spark computes it (`Utils.EPSILON`).
const EPSILON: f64 = f64::EPSILON;
/// How exact a distance by norms has to be (`MLUtils.fastSquaredDistance`).
const PRECISION: f64 = 1e-6;
/// There may be this many centres.
const MAX_CENTRES: usize = 1 << 16;

#[derive(Debug)]
struct Clusters {
    name: String,
    centres: Vec<Centre>,
    is_cosine: bool,
}

#[derive(Debug)]
struct Centre {
    numbers: Vec<f64>,
    norm: f64,
}

pub(super) fn load(plan: &mut Plan, stage: &Stage) -> Result<Loaded> {
    let is_cosine = stage.choice("distanceMeasure", &[("euclidean", false), ("cosine", true)])?;
    let table = Table::read_rows(stage)?;
    let places: &Int32Array = column(table.rows(), "clusterIdx")?;
    if table.len() > MAX_CENTRES {
        return Err(stage.fault(format_args!("it has more than {MAX_CENTRES} centres; train with fewer")));
    }
    let mut centres: Vec<(i32, Centre)> = Vec::new();
    for (row, place) in places.values().iter().enumerate() {
        let numbers = table.vector("clusterCenter", row)?.expanded();
        let numbers = numbers.ok_or_else(|| stage.fault("its centres are too long; train with fewer features"))?;
        let norm = numbers.iter().map(|value| value * value).sum::<f64>().sqrt();
        centres.push((*place, Centre { numbers, norm }));
    }
    centres.sort_by_key(|(place, _)| *place);
    let width = centres.first().map_or(0, |(_, centre)| centre.numbers.len());
    let fits = |(at, (place, centre)): (usize, &(i32, Centre))| {
        usize::try_from(*place) == Ok(at) && centre.numbers.len() == width
    };
    if !centres.iter().enumerate().all(fits) {
        return Err(stage.fault("its centres are not all there, or of different lengths; save the model again"));
    }
    let name = stage.text("featuresCol")?.to_owned();
    let vectors = plan.vectors(stage, &name, Some(width))?;
    let centres: Vec<Centre> = centres.into_iter().map(|(_, centre)| centre).collect();
    let objective = format!("clustering, {}", stage.text("distanceMeasure")?);
    let classes = Some(centres.len());
    let predictor = Box::new(Clusters { name, centres, is_cosine });
    Ok(Loaded { predictor, column: vectors.column, classes, has_probabilities: false, objective, trees: 0 })
}

impl Centre {
    fn dot(&self, vectors: &Rows<'_>, row: usize) -> f64 {
        let mut sum = 0.0;
        vectors.each(row, |at, value| sum += self.numbers[at] * value);
        sum
    }

    /// `Vectors.sqdist`.
    fn squared_distance(&self, vectors: &Rows<'_>, row: usize) -> f64 {
        let (mut sum, mut next) = (0.0, 0);
        vectors.each(row, |at, value| {
            sum += self.numbers[next..at].iter().map(|number| number * number).sum::<f64>();
            sum += (self.numbers[at] - value) * (self.numbers[at] - value);
            next = at + 1;
        });
        sum + self.numbers[next..].iter().map(|number| number * number).sum::<f64>()
    }

    /// `MLUtils.fastSquaredDistance`: by the norms where that is exact enough.
    fn fast_squared_distance(&self, vectors: &Rows<'_>, row: usize, norm: f64) -> f64 {
        let squares = self.norm * self.norm + norm * norm;
        let difference = self.norm - norm;
        let bound = 2.0 * EPSILON * squares / (difference * difference + EPSILON);
        if bound < PRECISION {
            return squares - 2.0 * self.dot(vectors, row);
        }
        if matches!(vectors, Rows::Sparse(_)) {
            let dot = self.dot(vectors, row);
            let distance = (squares - 2.0 * dot).max(0.0);
            let bound = EPSILON * (squares + 2.0 * dot.abs()) / (distance + EPSILON);
            if bound <= PRECISION {
                return distance;
            }
        }
        self.squared_distance(vectors, row)
    }
}

impl Clusters {
    /// The nearest centre, as `DistanceMeasure.findClosest` finds it: the first one where nothing can be compared.
    fn nearest(&self, vectors: &Rows<'_>, row: usize, norm: f64) -> usize {
        let (mut best, mut least) = (0, f64::INFINITY);
        for (at, centre) in self.centres.iter().enumerate() {
            let bound = (centre.norm - norm) * (centre.norm - norm);
            let distance = match self.is_cosine {
                true => 1.0 - centre.dot(vectors, row) / centre.norm / norm,
                false if bound < least => centre.fast_squared_distance(vectors, row, norm),
                false => continue,
            };
            if distance < least {
                (best, least) = (at, distance);
            }
        }
        best
    }
}

impl Predictor for Clusters {
    fn predict(&self, vectors: &Rows<'_>, block: &Block<'_>, predictions: &mut [f64], _: &mut [f64]) -> Result<()> {
        let mut norms = [0.0; BLOCK_ROWS];
        for (row, prediction) in predictions.iter_mut().enumerate() {
            let norm = &mut norms[row];
            vectors.each(row, |_, value| *norm += value * value);
            *norm = norm.sqrt();
            // `MLUtils.fastSquaredDistance` and `CosineDistanceMeasure.distance` ask for that.
            let is_fine = if self.is_cosine { *norm > 0.0 } else { *norm >= 0.0 };
            if !is_fine && !block.dropped()[row] {
                return Err(Error::violated(format!(
                    "column {}: the model's KMeans refuses a vector of length {norm}; leave such rows out, or put an \
                     Imputer into the pipeline",
                    self.name
                )));
            }
            *prediction = self.nearest(vectors, row, *norm) as f64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::vector::Data;
    use super::*;

    fn clusters(is_cosine: bool) -> Clusters {
        let centre = |numbers: [f64; 2]| Centre { norm: numbers[0].hypot(numbers[1]), numbers: numbers.into() };
        Clusters { name: "v".into(), centres: [[1.0, 0.0], [0.0, 5.0]].map(centre).into(), is_cosine }
    }

    fn predict(is_cosine: bool, vector: [f64; 2]) -> Result<f64> {
        let mut block = Block::new(&[], 0);
        block.go_to(0, 1);
        let mut predictions = [0.0];
        clusters(is_cosine).predict(&Rows::Dense { values: &vector, rows: 1 }, &block, &mut predictions, &mut [])?;
        Ok(predictions[0])
    }

    #[test]
    fn the_nearest_centre_is_found_by_either_distance() {
        assert_eq!(predict(false, [1.0, 1.5]).unwrap(), 0.0);
        assert_eq!(predict(true, [1.0, 1.5]).unwrap(), 1.0);
        let error = predict(false, [f64::NAN, 9.0]).unwrap_err().to_string();
        assert!(error.starts_with("column v: the model's KMeans refuses a vector of length NaN; "), "{error}");
        assert_eq!(predict(false, [0.0, f64::INFINITY]).unwrap(), 0.0);
        let error = predict(true, [0.0, 0.0]).unwrap_err().to_string();
        assert!(error.starts_with("column v: the model's KMeans refuses a vector of length 0; "));
    }

    #[test]
    fn sparse_vectors_are_as_far_as_dense_ones() {
        let centre = Centre { numbers: vec![1.0, 2.0, 3.0, 4.0], norm: 30.0_f64.sqrt() };
        let mut data = Data::default();
        let sparse = data.no_vectors();
        sparse.push_row((&[1, 2], &[0.5, 3.5]));
        let dense = Rows::Dense { values: &[0.0, 0.5, 3.5, 0.0], rows: 1 };
        let distance = centre.squared_distance(&Rows::Sparse(sparse), 0);
        assert_eq!(distance, centre.squared_distance(&dense, 0));
        let norm = 12.5_f64.sqrt();
        assert!((centre.fast_squared_distance(&Rows::Sparse(sparse), 0, norm) - distance).abs() < 1e-12);
    }
}
