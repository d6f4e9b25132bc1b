//! `knarr.dev/v1alpha1`: what Knarr's own kinds have in common.
//!
//! Owns: the group's names, and k8s-openapi's traits for types that it does not have. May not know: any of the kinds.

pub const GROUP: &str = "knarr.dev";
pub const VERSION: &str = "v1alpha1";
/// The two together.
pub const API_VERSION: &str = "knarr.dev/v1alpha1";

/// Makes a type with a field `metadata: ObjectMeta` a namespaced kind of the group.
macro_rules! own_kind {
    ($kind:ident, $plural:literal) => {
        impl ::k8s_openapi::Resource for $kind {
            const API_VERSION: &'static str = $crate::own::API_VERSION;
            const GROUP: &'static str = $crate::own::GROUP;
            const KIND: &'static str = stringify!($kind);
            const VERSION: &'static str = $crate::own::VERSION;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = ::k8s_openapi::NamespaceResourceScope;
        }

        impl ::k8s_openapi::ListableResource for $kind {
            const LIST_KIND: &'static str = concat!(stringify!($kind), "List");
        }

        impl ::k8s_openapi::Metadata for $kind {
            type Ty = ::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }
    };
}

pub(crate) use own_kind;
