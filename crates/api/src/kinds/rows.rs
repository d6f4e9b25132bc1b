//! The rows of the kinds table. A new built-in kind starts here.

use k8s_openapi::api::{
    admissionregistration::v1 as registration, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, autoscaling, batch::v1 as batch, certificates::v1 as certificates,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    flowcontrol::v1 as flowcontrol, networking::v1 as networking, node::v1 as node, policy::v1 as policy,
    rbac::v1 as rbac, resource::v1 as resource, scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;

use super::{Kind, SelectableField, Subresource};
use crate::bucket::Bucket;
use crate::function::Function;
use crate::own;
use crate::usage::{NodeMetrics, PodMetrics};

const CREATE: &[&str] = &["create"];
const GET: &[&str] = &["get"];
const UPDATE: &[&str] = &["update"];
/// Asked for, never kept.
const GET_LIST: &[&str] = &["get", "list"];
const CREATE_GET: &[&str] = &["create", "get"];
const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
const ENTRY_VERBS: &[&str] = &["create", "delete", "get", "list", "update"];
/// Namespaces are never deleted many at once.
const NAMESPACE_VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

const fn sub(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Subresource {
    Subresource { name, group: "", version: "v1", kind, verbs }
}

const fn sub_of(
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource { name, group, version, kind, verbs }
}

pub(super) const fn status(group: &'static str, version: &'static str, kind: &'static str) -> Subresource {
    sub_of("status", group, version, kind, GET_PATCH_UPDATE)
}

pub(super) const SCALE: Subresource = sub_of("scale", "autoscaling", "v1", "Scale", GET_PATCH_UPDATE);

const fn field(name: &'static str, pointers: &'static [&'static str]) -> SelectableField {
    SelectableField { name, pointers, absent: "" }
}

const fn field_or(name: &'static str, pointers: &'static [&'static str], absent: &'static str) -> SelectableField {
    SelectableField { name, pointers, absent }
}

const POD_SUBRESOURCES: &[Subresource] = &[
    sub("attach", "PodAttachOptions", CREATE_GET),
    sub("binding", "Binding", CREATE),
    sub("ephemeralcontainers", "Pod", GET_PATCH_UPDATE),
    sub_of("eviction", "policy", "v1", "Eviction", CREATE),
    sub("exec", "PodExecOptions", CREATE_GET),
    sub("log", "Pod", GET),
    sub("portforward", "PodPortForwardOptions", CREATE_GET),
    sub("proxy", "PodProxyOptions", PROXY),
    sub("resize", "Pod", GET_PATCH_UPDATE),
    status("", "v1", "Pod"),
];

/// Entries of a bucket are bytes, not objects.
const BUCKET_SUBRESOURCES: &[Subresource] = &[
    sub_of("entries", own::GROUP, own::VERSION, "BucketEntryOptions", ENTRY_VERBS),
    status(own::GROUP, own::VERSION, "Bucket"),
];

const POD_FIELDS: &[SelectableField] = &[
    field("spec.nodeName", &["/spec/nodeName"]),
    field("spec.restartPolicy", &["/spec/restartPolicy"]),
    field("spec.schedulerName", &["/spec/schedulerName"]),
    field("spec.serviceAccountName", &["/spec/serviceAccountName"]),
    field_or("spec.hostNetwork", &["/spec/hostNetwork"], "false"),
    field("status.phase", &["/status/phase"]),
    field("status.podIP", &["/status/podIP", "/status/podIPs/0/ip"]),
    field("status.podIPs", &["/status/podIPs/0/ip"]),
    field("status.nominatedNodeName", &["/status/nominatedNodeName"]),
];

const EVENT_FIELDS: &[SelectableField] = &[
    field("involvedObject.kind", &["/involvedObject/kind"]),
    field("involvedObject.namespace", &["/involvedObject/namespace"]),
    field("involvedObject.name", &["/involvedObject/name"]),
    field("involvedObject.uid", &["/involvedObject/uid"]),
    field("involvedObject.apiVersion", &["/involvedObject/apiVersion"]),
    field("involvedObject.resourceVersion", &["/involvedObject/resourceVersion"]),
    field("involvedObject.fieldPath", &["/involvedObject/fieldPath"]),
    field("reason", &["/reason"]),
    field("reportingComponent", &["/reportingComponent"]),
    field("source", &["/source/component", "/reportingComponent"]),
    field("type", &["/type"]),
];

/// Read from the stored form, core/v1, whose field names the pointers use.
const NEW_EVENT_FIELDS: &[SelectableField] = &[
    field("regarding.kind", &["/regarding/kind", "/involvedObject/kind"]),
    field("regarding.namespace", &["/regarding/namespace", "/involvedObject/namespace"]),
    field("regarding.name", &["/regarding/name", "/involvedObject/name"]),
    field("regarding.uid", &["/regarding/uid", "/involvedObject/uid"]),
    field("regarding.apiVersion", &["/regarding/apiVersion", "/involvedObject/apiVersion"]),
    field("regarding.resourceVersion", &["/regarding/resourceVersion", "/involvedObject/resourceVersion"]),
    field("regarding.fieldPath", &["/regarding/fieldPath", "/involvedObject/fieldPath"]),
    field("reason", &["/reason"]),
    field("reportingController", &["/reportingController", "/reportingComponent"]),
    field("type", &["/type"]),
];

const REPLICA_FIELDS: &[SelectableField] = &[field_or("status.replicas", &["/status/replicas"], "0")];

pub(super) const ROWS: &[Kind] = &[
    // core/v1
    Kind::answered::<core::Binding>("binding", CREATE),
    Kind::of::<core::ComponentStatus>("componentstatus").short(&["cs"]).verbs(GET_LIST),
    Kind::of::<core::ConfigMap>("configmap").short(&["cm"]),
    Kind::of::<core::Endpoints>("endpoints").short(&["ep"]),
    Kind::of::<core::Event>("event").short(&["ev"]).selectable(EVENT_FIELDS),
    Kind::of::<core::LimitRange>("limitrange").short(&["limits"]),
    Kind::of::<core::Namespace>("namespace")
        .short(&["ns"])
        .verbs(NAMESPACE_VERBS)
        .subresources(&[sub("finalize", "Namespace", UPDATE), status("", "v1", "Namespace")])
        .selectable(&[field("status.phase", &["/status/phase"])]),
    Kind::of::<core::Node>("node")
        .short(&["no"])
        .subresources(&[sub("proxy", "NodeProxyOptions", PROXY), status("", "v1", "Node")])
        .selectable(&[field_or("spec.unschedulable", &["/spec/unschedulable"], "false")]),
    Kind::of::<core::PersistentVolume>("persistentvolume").short(&["pv"]).subresources(&[status(
        "",
        "v1",
        "PersistentVolume",
    )]),
    Kind::of::<core::PersistentVolumeClaim>("persistentvolumeclaim").short(&["pvc"]).subresources(&[status(
        "",
        "v1",
        "PersistentVolumeClaim",
    )]),
    Kind::of::<core::Pod>("pod")
        .short(&["po"])
        .in_all()
        .subresources(POD_SUBRESOURCES)
        .selectable(POD_FIELDS)
        .generation(),
    Kind::of::<core::PodTemplate>("podtemplate").generation(),
    Kind::of::<core::ReplicationController>("replicationcontroller")
        .short(&["rc"])
        .in_all()
        .subresources(&[SCALE, status("", "v1", "ReplicationController")])
        .selectable(REPLICA_FIELDS)
        .generation(),
    Kind::of::<core::ResourceQuota>("resourcequota").short(&["quota"]).subresources(&[status(
        "",
        "v1",
        "ResourceQuota",
    )]),
    Kind::of::<core::Secret>("secret").selectable(&[field("type", &["/type"])]),
    Kind::of::<core::Service>("service")
        .short(&["svc"])
        .in_all()
        .subresources(&[sub("proxy", "ServiceProxyOptions", PROXY), status("", "v1", "Service")])
        .selectable(&[field("spec.clusterIP", &["/spec/clusterIP"]), field("spec.type", &["/spec/type"])]),
    Kind::of::<core::ServiceAccount>("serviceaccount").short(&["sa"]).subresources(&[sub_of(
        "token",
        "authentication.k8s.io",
        "v1",
        "TokenRequest",
        CREATE,
    )]),
    // admissionregistration.k8s.io/v1
    Kind::of::<registration::MutatingAdmissionPolicy>("mutatingadmissionpolicy").generation(),
    Kind::of::<registration::MutatingAdmissionPolicyBinding>("mutatingadmissionpolicybinding").generation(),
    Kind::of::<registration::MutatingWebhookConfiguration>("mutatingwebhookconfiguration")
        .categories(&["api-extensions"])
        .generation(),
    Kind::of::<registration::ValidatingAdmissionPolicy>("validatingadmissionpolicy")
        .categories(&["api-extensions"])
        .subresources(&[status("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy")])
        .generation(),
    Kind::of::<registration::ValidatingAdmissionPolicyBinding>("validatingadmissionpolicybinding")
        .categories(&["api-extensions"])
        .generation(),
    Kind::of::<registration::ValidatingWebhookConfiguration>("validatingwebhookconfiguration")
        .categories(&["api-extensions"])
        .generation(),
    // apiextensions.k8s.io/v1
    Kind::of::<apiextensions::CustomResourceDefinition>("customresourcedefinition")
        .short(&["crd", "crds"])
        .categories(&["api-extensions"])
        .subresources(&[status("apiextensions.k8s.io", "v1", "CustomResourceDefinition")])
        .generation(),
    // apiregistration.k8s.io/v1
    Kind::of::<apiregistration::APIService>("apiservice").categories(&["api-extensions"]).subresources(&[status(
        "apiregistration.k8s.io",
        "v1",
        "APIService",
    )]),
    // apps/v1
    Kind::of::<apps::ControllerRevision>("controllerrevision"),
    Kind::of::<apps::DaemonSet>("daemonset")
        .short(&["ds"])
        .in_all()
        .subresources(&[status("apps", "v1", "DaemonSet")])
        .generation(),
    Kind::of::<apps::Deployment>("deployment")
        .short(&["deploy"])
        .in_all()
        .subresources(&[SCALE, status("apps", "v1", "Deployment")])
        .generation(),
    Kind::of::<apps::ReplicaSet>("replicaset")
        .short(&["rs"])
        .in_all()
        .subresources(&[SCALE, status("apps", "v1", "ReplicaSet")])
        .selectable(REPLICA_FIELDS)
        .generation(),
    Kind::of::<apps::StatefulSet>("statefulset")
        .short(&["sts"])
        .in_all()
        .subresources(&[SCALE, status("apps", "v1", "StatefulSet")])
        .generation(),
    // authentication.k8s.io/v1, authorization.k8s.io/v1
    Kind::answered::<authentication::SelfSubjectReview>("selfsubjectreview", CREATE),
    Kind::answered::<authentication::TokenReview>("tokenreview", CREATE),
    Kind::answered::<authorization::LocalSubjectAccessReview>("localsubjectaccessreview", CREATE),
    Kind::answered::<authorization::SelfSubjectAccessReview>("selfsubjectaccessreview", CREATE),
    Kind::answered::<authorization::SelfSubjectRulesReview>("selfsubjectrulesreview", CREATE),
    Kind::answered::<authorization::SubjectAccessReview>("subjectaccessreview", CREATE),
    // autoscaling
    Kind::of::<autoscaling::v2::HorizontalPodAutoscaler>("horizontalpodautoscaler")
        .short(&["hpa"])
        .in_all()
        .subresources(&[status("autoscaling", "v2", "HorizontalPodAutoscaler")]),
    Kind::of::<autoscaling::v1::HorizontalPodAutoscaler>("horizontalpodautoscaler")
        .short(&["hpa"])
        .in_all()
        .subresources(&[status("autoscaling", "v1", "HorizontalPodAutoscaler")])
        .stored_as("autoscaling", "v2"),
    // batch/v1
    Kind::of::<batch::CronJob>("cronjob")
        .short(&["cj"])
        .in_all()
        .subresources(&[status("batch", "v1", "CronJob")])
        .generation(),
    Kind::of::<batch::Job>("job")
        .in_all()
        .subresources(&[status("batch", "v1", "Job")])
        .selectable(&[field_or("status.successful", &["/status/succeeded"], "0")])
        .generation(),
    // certificates.k8s.io/v1
    Kind::of::<certificates::CertificateSigningRequest>("certificatesigningrequest")
        .short(&["csr"])
        .subresources(&[
            sub_of("approval", "certificates.k8s.io", "v1", "CertificateSigningRequest", GET_PATCH_UPDATE),
            status("certificates.k8s.io", "v1", "CertificateSigningRequest"),
        ])
        .selectable(&[field("spec.signerName", &["/spec/signerName"])]),
    // coordination.k8s.io/v1, discovery.k8s.io/v1, events.k8s.io/v1
    Kind::of::<coordination::Lease>("lease"),
    Kind::of::<discovery::EndpointSlice>("endpointslice").generation(),
    Kind::of::<events::Event>("event").short(&["ev"]).selectable(NEW_EVENT_FIELDS).stored_as("", "v1"),
    // flowcontrol.apiserver.k8s.io/v1
    Kind::of::<flowcontrol::FlowSchema>("flowschema")
        .subresources(&[status("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema")])
        .generation(),
    Kind::of::<flowcontrol::PriorityLevelConfiguration>("prioritylevelconfiguration")
        .subresources(&[status("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration")])
        .generation(),
    // networking.k8s.io/v1
    Kind::of::<networking::Ingress>("ingress")
        .short(&["ing"])
        .subresources(&[status("networking.k8s.io", "v1", "Ingress")])
        .generation(),
    Kind::of::<networking::IngressClass>("ingressclass").generation(),
    Kind::of::<networking::IPAddress>("ipaddress").short(&["ip"]).selectable(&[
        field("spec.parentRef.group", &["/spec/parentRef/group"]),
        field("spec.parentRef.name", &["/spec/parentRef/name"]),
        field("spec.parentRef.namespace", &["/spec/parentRef/namespace"]),
        field("spec.parentRef.resource", &["/spec/parentRef/resource"]),
    ]),
    Kind::of::<networking::NetworkPolicy>("networkpolicy").short(&["netpol"]).generation(),
    Kind::of::<networking::ServiceCIDR>("servicecidr").subresources(&[status(
        "networking.k8s.io",
        "v1",
        "ServiceCIDR",
    )]),
    // metrics.k8s.io/v1beta1
    Kind::of::<NodeMetrics>("nodemetrics").verbs(GET_LIST),
    Kind::of::<PodMetrics>("podmetrics").verbs(GET_LIST),
    // knarr.dev/v1alpha1
    Kind::of::<Bucket>("bucket").subresources(BUCKET_SUBRESOURCES).generation(),
    Kind::of::<Function>("function")
        .short(&["fn"])
        .in_all()
        .subresources(&[
            sub_of("invoke", own::GROUP, own::VERSION, "FunctionInvokeOptions", CREATE),
            SCALE,
            status(own::GROUP, own::VERSION, "Function"),
        ])
        .generation(),
    // node.k8s.io/v1, policy/v1
    Kind::of::<node::RuntimeClass>("runtimeclass"),
    Kind::of::<policy::PodDisruptionBudget>("poddisruptionbudget")
        .short(&["pdb"])
        .subresources(&[status("policy", "v1", "PodDisruptionBudget")])
        .generation(),
    // rbac.authorization.k8s.io/v1
    Kind::of::<rbac::ClusterRole>("clusterrole"),
    Kind::of::<rbac::ClusterRoleBinding>("clusterrolebinding"),
    Kind::of::<rbac::Role>("role"),
    Kind::of::<rbac::RoleBinding>("rolebinding"),
    // resource.k8s.io/v1
    Kind::of::<resource::DeviceClass>("deviceclass").generation(),
    Kind::of::<resource::ResourceClaim>("resourceclaim").subresources(&[status(
        "resource.k8s.io",
        "v1",
        "ResourceClaim",
    )]),
    Kind::of::<resource::ResourceClaimTemplate>("resourceclaimtemplate"),
    Kind::of::<resource::ResourceSlice>("resourceslice")
        .selectable(&[field("spec.driver", &["/spec/driver"]), field("spec.nodeName", &["/spec/nodeName"])])
        .generation(),
    // scheduling.k8s.io/v1, storage.k8s.io/v1
    Kind::of::<scheduling::PriorityClass>("priorityclass").short(&["pc"]).generation(),
    Kind::of::<storage::CSIDriver>("csidriver"),
    Kind::of::<storage::CSINode>("csinode"),
    Kind::of::<storage::CSIStorageCapacity>("csistoragecapacity"),
    Kind::of::<storage::StorageClass>("storageclass").short(&["sc"]),
    Kind::of::<storage::VolumeAttachment>("volumeattachment").subresources(&[status(
        "storage.k8s.io",
        "v1",
        "VolumeAttachment",
    )]),
    Kind::of::<storage::VolumeAttributesClass>("volumeattributesclass").short(&["vac"]),
];
