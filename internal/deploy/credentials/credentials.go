// Package credentials fetches the token and the CA with which a daemon reaches the API
// server, from the Secret of its service account or by a TokenRequest. It verifies them
// before it returns them: the API server confirms, over a connection with this CA, which
// account the token belongs to and what it may do.
//
// It must not depend on how credentials get to a node.
package credentials

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
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

	// Own is the node for which the account is that of one daemon on this node only; see ForNode.
	Own *inventory.Node

	// CA is used instead of the one that the cluster publishes; PEM.
	CA []byte

	// Address is where compute nodes reach the API server, and where the credentials are
	// verified; zero: the one in the kubeconfig.
	Address inventory.Address
	// Wait is how long the control plane may take to fill a Secret.
	Wait time.Duration
}

// ForNode returns the request for a token of a daemon's own account on a node, which expires after
// lifetime. The account must have exactly the permissions of identities.Permissions.
func ForNode(d product.Daemon, n inventory.Node, lifetime time.Duration) Request {
	return Request{Account: d.NodeAccount(n.Name), Program: d.Name, Bound: true, Lifetime: lifetime, Own: &n}
}

// MinLifetime is the shortest lifetime that the API server grants.
const MinLifetime = kube.MinTokenLife

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

// remedy returns the hint how to create the account, Secret and rights.
func (r *Request) remedy() string {
	if r.Own != nil {
		return "run nnf-deploy identities apply " + r.Own.Name
	}
	if p, _ := product.Of(r.Program); p.Manifest != "" {
		return "apply the manifest " + p.Manifest + " of this package"
	}
	return "create it"
}

// UID returns the UID of an account of one node. Tokens that were issued for an account with
// another UID are no longer valid.
func UID(ctx context.Context, admin *kube.Client, r Request) (string, error) {
	var a struct {
		metav1.ObjectMeta `json:"metadata"`
	}
	err := admin.Get(ctx, accounts, r.Account.Namespace, r.Account.Name, &a)
	if kube.IsNotFound(err) {
		return "", noAccount(&r)
	}
	return string(a.UID), err
}

func noAccount(r *Request) error {
	return hint.Add(fmt.Errorf("there is no ServiceAccount %s", r.Account), "%s", r.remedy())
}
