//! `contract.proto`, `contract.message`: a sink whose columns are those of a message, by name, type and presence.

use arrow::datatypes::DataType;

use super::column::delta_type;
use super::fault::Fault;
use super::loader::{Loader, TableStatement};
use super::statement::normal;
use super::suggest;
use super::text::Place;
use crate::contract::{Contract, ContractColumn, sql_type};
use crate::schema;

impl Loader<'_> {
    /// Holds a sink's columns against the message that its options name; what does not agree is reported, column by
    /// column.
    pub(super) fn message_contract(&mut self, table: &mut TableStatement<'_>, contract: &Contract) {
        let [proto, message, include] =
            ["contract.proto", "contract.message", "contract.include"].map(|key| table.options.text(key));
        let ((file, file_place), (name, name_place)) = match (proto, message) {
            (None, None) => return,
            (Some(proto), Some(message)) => (proto, message),
            (Some((_, place)), None) => return self.half(&place, "contract.message"),
            (None, Some((_, place))) => return self.half(&place, "contract.proto"),
        };
        let (Some(file), Some(name)) = (file, name) else { return };
        let include = include.and_then(|(value, _)| value);
        let Some(descriptors) = self.compile(&file, include.as_deref(), &file_place) else { return };
        let Some(message) = descriptors.message(&name) else {
            let mut fault =
                Fault::new(&self.source, &name_place, format!("message `{name}` is not in the proto files"));
            let names = descriptors.message_names();
            if let Some(remedy) = suggest::did_you_mean(&name, names.iter().map(String::as_str)) {
                fault = fault.remedy(remedy);
            }
            self.faults.push(fault);
            return;
        };
        let fields = match schema::columns(&message) {
            Ok(fields) => fields,
            Err(error) => {
                let fault = Fault::new(&self.source, &name_place, error.message());
                self.faults.push(fault.remedy("name a smaller message"));
                return;
            }
        };
        for column in &contract.columns {
            let place = self.place_of_column(table, &column.name);
            let wrong = match fields.iter().find(|field| *field.name() == column.name) {
                None => {
                    let near = suggest::did_you_mean(&column.name, fields.iter().map(|f| f.name().as_str()));
                    Some((format!("message {name} has no such field"), near.unwrap_or_else(|| "leave it out".into())))
                }
                Some(field) => disagreement(column, field.data_type(), field.is_nullable(), &name),
            };
            if let Some((what, remedy)) = wrong {
                let message = format!("column `{}`: {what}", column.name);
                self.faults.push(Fault::new(&self.source, &place, message).remedy(remedy));
            }
        }
        for field in fields.iter().filter(|f| contract.columns.iter().all(|c| c.name != *f.name())) {
            let null = if field.is_nullable() { "" } else { " NOT NULL" };
            let message = format!("sink `{}` has no column for the field `{}` of {name}", table.name, field.name());
            let remedy = format!("declare {} {}{null}", field.name(), sql_type(field.data_type()));
            self.faults.push(Fault::new(&self.source, &table.name_place, message).remedy(remedy));
        }
    }

    fn half(&mut self, place: &Place, missing: &str) {
        let fault = Fault::new(&self.source, place, format!("the sink has no option `{missing}`"));
        self.faults
            .push(fault.remedy("write both: 'contract.proto' 'FILE.proto', 'contract.message' 'package.Message'"));
    }

    fn place_of_column(&self, table: &TableStatement<'_>, name: &str) -> Place {
        let column = table.tree.columns.iter().find(|column| normal(&column.name) == name);
        let place = column.and_then(|column| self.source.place(column.name.span));
        place.unwrap_or_else(|| table.name_place.clone())
    }
}

/// In what a column is not what the message's field is, and what to do about it.
fn disagreement(column: &ContractColumn, field: &DataType, nullable: bool, message: &str) -> Option<(String, String)> {
    let field = match delta_type(field) {
        Ok(field) => field,
        Err(why) => {
            return Some((
                format!("as the field of {message} says, {why}"),
                "leave the field out of the message".into(),
            ));
        }
    };
    if !is_same(&column.data_type, &field) {
        let (is, wants) = (sql_type(&column.data_type), sql_type(&field));
        return Some((format!("it is {is}, the field of {message} is {wants}"), format!("declare it {wants}")));
    }
    match (column.nullable, nullable) {
        (true, false) => Some((
            format!("it may be NULL, the field of {message} is always there"),
            "declare it NOT NULL, or make the field `optional`".into(),
        )),
        (false, true) => Some((
            format!("it is NOT NULL, the field of {message} may be absent"),
            "leave NOT NULL out, or take `optional` from the field".into(),
        )),
        _ => None,
    }
}

/// Whether two types are the same but for the NULLs inside lists, maps and structs, which SQL does not declare.
fn is_same(a: &DataType, b: &DataType) -> bool {
    use DataType::*;
    match (a, b) {
        (List(a), List(b)) => is_same(a.data_type(), b.data_type()),
        (Map(a, _), Map(b, _)) => match (a.data_type(), b.data_type()) {
            (Struct(a), Struct(b)) => a.iter().zip(b).all(|(a, b)| is_same(a.data_type(), b.data_type())),
            _ => false,
        },
        (Struct(a), Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && is_same(a.data_type(), b.data_type()))
        }
        (a, b) => a == b,
    }
}
