pub mod observe;
pub mod settings;
