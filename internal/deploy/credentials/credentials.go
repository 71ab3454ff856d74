// Package credentials fetches the token and the CA with which a daemon reaches the API
// server: from the Secret of its service account, or by a TokenRequest. It verifies them
// before it returns them: the API server confirms, over a connection with this CA, which
// account the token belongs to and what it may do.
//
// It must not know how credentials get to a node.
package credentials

import (
	"context"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Request describes the wanted credentials.
type Request struct {
	Account product.Account
	Program string // whose rights the account must have: "clientmountd", "nnf-dm"; empty: none
	Secret  string // name of the Secret; empty: the account's name

	// Bound asks for a token that expires after Lifetime, instead of the one that never
	// expires and that all computes share. With Node it is valid only while the cluster
	// has a node of that name.
	Bound    bool
	Node     string
	Lifetime time.Duration

	// Address is where computes reach the API server, and where the credentials are
	// verified; zero: that of the kubeconfig.
	Address inventory.Address
	// Wait is how long the control plane may take to fill a Secret.
	Wait time.Duration
}

// MinLifetime is the shortest lifetime that the API server grants.
const MinLifetime = 10 * time.Minute

// Credentials are a token and a CA, and what is known of them.
type Credentials struct {
	Token   string
	CA      []byte // PEM
	Account product.Account
	Expires time.Time // zero: never
	Bound   bool      // by a TokenRequest
	Node    string    // that it is bound to
	Source  string    // for messages: "Secret nnf-system/nnf-clientmount"
	Server  string    // URL where they were verified
	Rights  int       // how many were checked
	Notes   []string  // what an administrator should know

	disused string // the day on which the control plane declared the token invalid
}

func (c *Credentials) note(text string) { c.Notes = append(c.Notes, text) }

// Get returns the verified credentials of an account. It writes nothing, but has the
// cluster make a bound token.
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

// remedy returns how to create account, Secret and rights of a program, for messages.
func remedy(program string) string {
	if p, _ := product.Of(program); p.Manifest != "" {
		return "apply " + p.Manifest + " of this package's manifests"
	}
	return "create it"
}
