package credentials

import (
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
)

// Request says whose credentials, and of which kind.
type Request struct {
	Account inventory.Account
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
	// RightsKnown leaves out the rights: they were checked for the account before.
	RightsKnown bool
}

// MinLifetime is the shortest that the API server grants.
const MinLifetime = 10 * time.Minute

// Credentials are what a daemon needs, and what is known of it.
type Credentials struct {
	Token   string
	CA      []byte // PEM
	Account inventory.Account
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
