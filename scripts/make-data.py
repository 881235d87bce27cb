#!/usr/bin/env python3
"""Makes the data that the shipped pipelines and the tests read. Fixed seeds: the same rows and models each time.

    python3 -m venv venv
    venv/bin/pip install numpy==2.4.6 pyarrow==26.0.1 deltalake==1.6.6 xgboost==3.2.0
    venv/bin/python scripts/make-data.py

What it writes (docs/data.md says what each is for):
    queries/data/contents.csv, categories.csv        inputs of queries/content_with_categories.sql
    queries/data/content_with_categories/            the Delta table that this query makes of them
    queries/data/click_probability.json              100 trees of depth 6 over rank, price, hour
    queries/data/click_probability_linear.json       logistic regression over rank, price, hour, bid
    tests/data/xgboost/                              small models of other kinds
    tests/data/click_probability*.csv, xgboost/*.csv what the Python library predicts with each
"""

import csv
import json
import shutil
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.csv
import xgboost as xgb

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "queries" / "data"
TESTS = ROOT / "tests" / "data"

ADS = 10_000
CATEGORIES = [
    "books", "cars", "computers", "fashion", "finance", "food", "furniture", "games", "garden", "health",
    "jewellery", "kitchen", "movies", "music", "pets", "photography", "sports", "tools", "toys", "travel",
]
ADVERTISERS = ["Acme", "Blue Harbour", "Corvid", "Dune & Co", "Elm Street", "Foxglove", "Granite", "Halcyon"]


def write_csv(path, header, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def make_lookup():
    """Contents and categories, and their join as a Delta table. One ad in fifty has no price."""
    rng = np.random.default_rng(42)
    category = rng.integers(1, len(CATEGORIES) + 1, ADS)
    advertiser = rng.integers(0, len(ADVERTISERS), ADS)
    rank = np.round(rng.beta(2.0, 3.0, ADS), 4)
    price = np.round(rng.lognormal(3.0, 0.8, ADS), 2)
    priced = rng.random(ADS) >= 0.02
    write_csv(DATA / "categories.csv", ["category_id", "category"], list(enumerate(CATEGORIES, start=1)))
    write_csv(
        DATA / "contents.csv",
        ["ad_id", "advertiser", "category_id", "rank", "price"],
        (
            [f"ad-{i:05}", ADVERTISERS[advertiser[i]], category[i], rank[i], price[i] if priced[i] else ""]
            for i in range(ADS)
        ),
    )

    names = {row["category_id"]: row["category"] for row in pa.csv.read_csv(DATA / "categories.csv").to_pylist()}
    contents = pa.csv.read_csv(DATA / "contents.csv").to_pylist()
    schema = pa.schema([
        pa.field("ad_id", pa.string(), nullable=False),
        pa.field("advertiser", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("rank", pa.float64(), nullable=False),
        pa.field("price", pa.float64()),
    ])
    rows = [{**row, "category": names[row["category_id"]]} for row in contents]
    table = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema=schema)
    target = DATA / "content_with_categories"
    shutil.rmtree(target, ignore_errors=True)
    deltalake.write_deltalake(str(target), table, name="content_with_categories")
    return table


def click_features(rng, rows):
    """rank, price, hour, bid and whether the ad was clicked, with values missing here and there."""
    rank = rng.beta(2.0, 3.0, rows)
    price = rng.lognormal(3.0, 0.8, rows)
    hour = rng.integers(0, 24, rows)
    bid = rng.gamma(2.0, 0.4, rows)
    evening = np.exp(-((hour - 20.0) ** 2) / 18.0)
    logit = -2.2 + 2.8 * rank - 0.35 * np.log1p(price) + 1.3 * evening + 0.4 * bid
    clicked = (rng.random(rows) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float32)
    return np.column_stack([rank, price, hour, bid]).astype(np.float32), clicked


def with_missing(rng, values, share=0.05):
    values = values.copy()
    values[rng.random(values.shape) < share] = np.nan
    return values


def train(params, features, labels, names, rounds):
    matrix = xgb.DMatrix(features, labels, feature_names=names)
    return xgb.train({"nthread": 1, "seed": 7, **params}, matrix, rounds)


def write_golden(path, booster, features, names):
    """The library's predictions as a CSV. A missing value is an empty cell; numbers are printed so that they read
    back to the same f32."""
    predicted = booster.predict(xgb.DMatrix(features, feature_names=names, nthread=1))
    cell = lambda value: "" if np.isnan(value) else np.format_float_positional(value, unique=True, trim="-")
    rows = ([cell(v) for v in row] + [cell(p)] for row, p in zip(features, predicted, strict=True))
    write_csv(path, [*names, "prediction"], rows)


def edge_rows(features):
    """Rows that decide something: all missing, infinite, huge, zero, and the model's own value ranges' ends."""
    width = features.shape[1]
    rows = [np.full(width, value, np.float32) for value in (np.nan, 0.0, -0.0, -1.0, 1e30, -1e30)]
    return np.vstack([*rows, np.nanmin(features, axis=0), np.nanmax(features, axis=0)]).astype(np.float32)


def make_click_models():
    rng = np.random.default_rng(43)
    features, clicked = click_features(rng, 40_000)
    names = ["rank", "price", "hour", "bid"]
    logistic = {"objective": "binary:logistic"}

    three = with_missing(rng, features[:, :3])
    trees = {**logistic, "max_depth": 6, "eta": 0.1, "min_child_weight": 10.0}
    booster = train(trees, three, clicked, names[:3], 100)
    booster.save_model(DATA / "click_probability.json")
    sample = np.vstack([three[:500 - 8], edge_rows(three)])
    write_golden(TESTS / "click_probability.csv", booster, sample, names[:3])

    linear = {**logistic, "booster": "gblinear", "updater": "coord_descent", "eta": 0.5, "lambda": 0.0001}
    booster = train(linear, features, clicked, names, 30)
    booster.save_model(DATA / "click_probability_linear.json")
    write_golden(TESTS / "click_probability_linear.csv", booster, with_missing(rng, features[:300]), names)


def make_small_models():
    """One model for each other thing that the loader knows, with the predictions of the library."""
    rng = np.random.default_rng(44)
    features, clicked = click_features(rng, 3_000)
    features = with_missing(rng, features, 0.1)
    amount = np.nan_to_num(features[:, 1]) * 3.0 + np.nan_to_num(features[:, 3])
    count = rng.poisson(np.nan_to_num(features[:, 3]) * 2.0).astype(np.float32)
    names = ["rank", "price", "hour", "bid"]
    kinds = {
        "dart": ({"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.3, "max_depth": 3}, clicked),
        "squarederror": ({"objective": "reg:squarederror", "max_depth": 4}, amount),
        "reg_logistic": ({"objective": "reg:logistic", "max_depth": 3, "base_score": 0.25}, clicked),
        "logitraw": ({"objective": "binary:logitraw", "max_depth": 3}, clicked),
        "poisson": ({"objective": "count:poisson", "max_depth": 3}, count),
        "lopsided": ({"objective": "reg:squarederror", "grow_policy": "lossguide", "max_leaves": 24, "max_depth": 0},
                     amount),
        "random_forest": ({"objective": "binary:logistic", "num_parallel_tree": 4, "subsample": 0.5, "max_depth": 3},
                          clicked),
        "linear_regression": ({"objective": "reg:squarederror", "booster": "gblinear"}, amount),
        "stump": ({"objective": "binary:logistic", "max_depth": 1, "gamma": 1e9}, clicked),
    }
    sample = np.vstack([features[:100], edge_rows(features)])
    for kind, (params, labels) in kinds.items():
        booster = train(params, features, labels, names, 8)
        booster.save_model(TESTS / "xgboost" / f"{kind}.json")
        write_golden(TESTS / "xgboost" / f"{kind}.csv", booster, sample, names)
    make_refused(rng, features, clicked)


def make_refused(rng, features, clicked):
    """Models that are refused: several classes, categorical splits, the binary form."""
    folder = TESTS / "xgboost" / "refused"
    folder.mkdir(exist_ok=True)
    classes = rng.integers(0, 3, len(clicked)).astype(np.float32)
    params = {"objective": "multi:softprob", "num_class": 3, "max_depth": 2}
    train(params, features, classes, ["rank", "price", "hour", "bid"], 2).save_model(folder / "multiclass.json")
    codes = rng.integers(0, 5, (len(clicked), 1)).astype(np.float32)
    labels = (codes[:, 0] % 2).astype(np.float32)
    matrix = xgb.DMatrix(codes, labels, feature_names=["kind"], feature_types=["c"], enable_categorical=True)
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 2, "nthread": 1}, matrix, 2)
    booster.save_model(folder / "categorical.json")
    booster.save_model(folder / "binary.ubj")


def main():
    for folder in (DATA, TESTS / "xgboost"):
        folder.mkdir(parents=True, exist_ok=True)
    table = make_lookup()
    make_click_models()
    make_small_models()
    with open(DATA / "click_probability.json") as file:
        trees = len(json.load(file)["learner"]["gradient_booster"]["model"]["trees"])
    print(f"{table.num_rows} ads, {trees} trees, {len(list((TESTS / 'xgboost').glob('*.json')))} small models")


if __name__ == "__main__":
    main()
