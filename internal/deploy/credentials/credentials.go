// Package credentials gets the token and the CA with which a daemon reaches the API
// server: out of the Secret of its service account, or made for a time. What it
// returns has been tried: the API server was asked with this token, by this CA,
// whose it is and what it may do.
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

// Request says whose credentials, and of which kind.
type Request struct {
	Account product.Account
	Program string // whose rights the account must have: "clientmountd", "nnf-dm"; empty: none
	Secret  string // name of the Secret; empty: the account's name

	// Bound asks for a token of its own that ends after Lifetime, instead of the
	// one that never ends and that all computes share. With Node it is good only
	// while the cluster knows a node of that name.
	Bound    bool
	Node     string
	Lifetime time.Duration

	// Address is where computes reach the API server, and where the credentials
	// are tried; zero: where the kubeconfig says.
	Address inventory.Address
	// Wait is how long the control plane may take to fill a Secret.
	Wait time.Duration
}

// MinLifetime is the shortest that the API server grants.
const MinLifetime = 10 * time.Minute

// Credentials are what a daemon needs, and what is known of it.
type Credentials struct {
	Token   string
	CA      []byte // PEM
	Account product.Account
	Expires time.Time // zero: never
	Bound   bool      // made for a time
	Node    string    // that it is bound to
	Source  string    // for messages: "Secret nnf-system/nnf-clientmount"
	Server  string    // URL where it was tried
	Rights  int       // how many were checked
	Notes   []string  // what an administrator should know

	disused string // the day on which the control plane gave the token up
}

func (c *Credentials) note(text string) { c.Notes = append(c.Notes, text) }

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

// remedy is what brings account, Secret and rights of a program into being.
func remedy(program string) string {
	if p, _ := product.Of(program); p.Manifest != "" {
		return "apply " + p.Manifest + " of this package's manifests"
	}
	return "create it"
}
