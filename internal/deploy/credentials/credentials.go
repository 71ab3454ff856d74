// Package credentials fetches the token and the CA with which a daemon reaches the API
// server, from the Secret of its service account or by a TokenRequest. It verifies them
// before it returns them: the API server confirms, over a connection with this CA, which
// account the token belongs to and what it may do.
//
// It must not depend on how credentials get to a node.
package credentials

import (
	"context"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Request describes the credentials to fetch.
type Request struct {
	Account product.Account
	Program string // program that determines the required rights: "clientmountd", "nnf-dm"; empty: none
	Secret  string // name of the Secret; empty: the account's name

	// Bound requests a token that expires after Lifetime, instead of the one that never
	// expires and that all compute nodes share. With Node, it is valid only while the cluster
	// has a Node object of that name.
	Bound    bool
	Node     string
	Lifetime time.Duration

	// Address is where compute nodes reach the API server, and where the credentials are
	// verified; zero: the one in the kubeconfig.
	Address inventory.Address
	// Wait is how long the control plane may take to fill a Secret.
	Wait time.Duration
}

// MinLifetime is the shortest lifetime that the API server grants.
const MinLifetime = 10 * time.Minute

// Credentials are a token and a CA, with the results of their verification.
type Credentials struct {
	Token   string
	CA      []byte // PEM
	Account product.Account
	Expires time.Time // zero: never
	Bound   bool      // from a TokenRequest
	Node    string    // Node that the token is bound to; empty: none
	Source  string    // for messages: "Secret nnf-system/nnf-clientmount"
	Server  string    // URL at which they were verified
	Rights  int       // number of permissions that were checked
	Notes   []string  // remarks for the administrator

	invalidSince string // date on which the control plane marked the token as invalid; empty: it did not
}

func (c *Credentials) note(text string) { c.Notes = append(c.Notes, text) }

// Get returns the verified credentials of an account. It writes no files. With Bound, it
// creates a token in the cluster.
func Get(ctx context.Context, admin *kube.Client, r Request) (*Credentials, error) {
	if r.Secret == "" {
		r.Secret = r.Account.Name
	}
	get := fromSecret
	if r.Bound {
		get = fromTokenRequest
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

// The resources of the API server that this package uses.
var (
	secrets    = kube.Resource{Version: "v1", Plural: "secrets", Kind: "Secret"}
	accounts   = kube.Resource{Version: "v1", Plural: "serviceaccounts", Kind: "ServiceAccount"}
	configMaps = kube.Resource{Version: "v1", Plural: "configmaps", Kind: "ConfigMap"}
	nodes      = kube.Resource{Version: "v1", Plural: "nodes", Kind: "Node"}
)

// remedy returns the hint how to create the account, Secret and rights of a program.
func remedy(program string) string {
	if p, _ := product.Of(program); p.Manifest != "" {
		return "apply the manifest " + p.Manifest + " of this package"
	}
	return "create it"
}
