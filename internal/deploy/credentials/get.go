package credentials

import (
	"context"

	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Get returns the credentials of an account, tried. Nothing is written anywhere,
// but a bound token is made in the cluster.
func Get(ctx context.Context, admin *kube.Client, r Request) (*Credentials, error) {
	if r.Secret == "" {
		r.Secret = r.Account.Name
	}
	get := fromSecret
	if r.Bound {
		get = requested
	}
	c, err := get(ctx, admin, r)
	if err != nil {
		return nil, err
	}
	if err := verify(ctx, admin, c, r); err != nil {
		return nil, err
	}
	return c, nil
}

// The kinds of the cluster that are used here.
var (
	secrets    = kube.Resource{Version: "v1", Plural: "secrets", Kind: "Secret"}
	accounts   = kube.Resource{Version: "v1", Plural: "serviceaccounts", Kind: "ServiceAccount"}
	configMaps = kube.Resource{Version: "v1", Plural: "configmaps", Kind: "ConfigMap"}
	nodes      = kube.Resource{Version: "v1", Plural: "nodes", Kind: "Node"}
	reviews    = kube.Resource{Group: "authentication.k8s.io", Version: "v1", Plural: "selfsubjectreviews", Kind: "SelfSubjectReview"}
	accesses   = kube.Resource{Group: "authorization.k8s.io", Version: "v1", Plural: "selfsubjectaccessreviews", Kind: "SelfSubjectAccessReview"}
)

// manifests have the account, its Secret and its rights; they lie in the
// documentation of the packages.
var manifests = map[string]string{"clientmountd": "clientmountd-rbac.yaml", "nnf-dm": "nnf-dm-rbac.yaml"}

// remedy is what brings account, Secret and rights of a program into being.
func remedy(program string) string {
	if m := manifests[program]; m != "" {
		return "apply " + m + " of this package's manifests"
	}
	return "create it"
}
