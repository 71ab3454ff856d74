package deploy

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/credentials"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// Values of --identity.
const (
	identityShared  = target.KindShared
	identityPerNode = target.KindPerNode
)

var identityKinds = []string{identityShared, identityPerNode}

// nodeLifetime is the usual lifetime of the tokens of single nodes.
const nodeLifetime = 7 * 24 * time.Hour

// maxTokenRequests is how many nodes get their tokens at the same time. Each needs about 40 requests
// to the API server, which take milliseconds, so more would not make an installation faster.
const maxTokenRequests = 8

// nodeTokens requests the tokens of single nodes. Its methods may be called concurrently.
type nodeTokens struct {
	lifetime time.Duration
	nodes    map[string]inventory.Node // by name
	slots    chan struct{}

	// uid returns the UID of an account, and issue a verified token of it.
	uid   func(ctx context.Context, r credentials.Request) (string, error)
	issue func(ctx context.Context, r credentials.Request) (*credentials.Credentials, error)
}

// newNodeTokens prepares the requests for the tokens of these nodes. The tokens are verified at the
// address.
func newNodeTokens(admin *kube.Client, nodes []inventory.Node, ca []byte, address inventory.Address, lifetime time.Duration) *nodeTokens {
	t := &nodeTokens{
		lifetime: lifetime, nodes: map[string]inventory.Node{}, slots: make(chan struct{}, maxTokenRequests),
		uid: func(ctx context.Context, r credentials.Request) (string, error) {
			return credentials.UID(ctx, admin, r)
		},
		issue: func(ctx context.Context, r credentials.Request) (*credentials.Credentials, error) {
			r.CA, r.Address = ca, address
			return credentials.Get(ctx, admin, r)
		},
	}
	for _, n := range nodes {
		t.nodes[n.Name] = n
	}
	return t
}

// own reports whether a daemon has an account of its own on each node.
func own(d *target.Daemon) bool { return d.Bin != "" && d.Account.Name != "" }

// complete sets the tokens of a node that need to be replaced, and marks those that stay. In a dry
// run, it requests no token: the plan is not applied.
func (t *nodeTokens) complete(ctx context.Context, w *target.Want, r *target.Report, dry bool, step func(string)) (notes []string, err error) {
	w.Daemons = slices.Clone(w.Daemons) // all nodes have them in common
	for i := range w.Daemons {
		d := &w.Daemons[i]
		if d.PerNode = own(d); d.PerNode && len(w.Payload.Packages)+len(w.Payload.Programs) == 0 {
			if err := r.Renews(d); err != nil {
				return nil, err
			}
		}
	}
	for i := range w.Daemons {
		d := &w.Daemons[i]
		if !own(d) {
			continue
		}
		more, err := t.daemon(ctx, w, d, r, dry, step)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Name, err)
		}
		notes = append(notes, more...)
	}
	return notes, nil
}

func (t *nodeTokens) daemon(ctx context.Context, w *target.Want, d *target.Daemon, r *target.Report, dry bool, step func(string)) (notes []string, err error) {
	p, _ := product.Of(d.Bin)
	request := credentials.ForNode(p, t.nodes[w.Node], t.lifetime)
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	d.Why = r.Rotate(d, w, "", t.lifetime, time.Now())
	if d.Why == "" || dry {
		uid, err := t.uid(ctx, request)
		if err != nil {
			return nil, err
		}
		if d.Why == "" {
			d.Why = r.Rotate(d, w, uid, t.lifetime, time.Now())
		}
	}
	switch {
	case d.Why == "":
		d.Keep = true
		return nil, nil
	case dry:
		d.Token = []byte("a token that is not requested in a dry run")
		return nil, nil
	}
	step("token")
	c, err := t.issue(ctx, request)
	if err != nil {
		return nil, err
	}
	d.Token = []byte(c.Token)
	for _, n := range c.Notes {
		notes = append(notes, d.Name+": "+n)
	}
	return notes, nil
}

// perNode prepares the installation of tokens of single nodes, and sets the CA of their daemons.
func (j *job) perNode(ctx context.Context, at inventory.Address, given bool, lifetime time.Duration, daemons []target.Daemon) (*nodeTokens, error) {
	admin, err := j.cluster()
	if err != nil {
		return nil, err
	}
	ca, err := credentials.Authority(ctx, admin, j.nodes[0].Name)
	if err != nil {
		return nil, err
	}
	for i := range daemons {
		if own(&daemons[i]) {
			daemons[i].CA = ca
		}
	}
	if !given {
		at = inventory.Address{}
	}
	return newNodeTokens(admin, j.nodes, ca, at, lifetime), nil
}

// movesBack returns an error if the node has tokens of accounts of its own, and the wanted ones
// belong to other accounts. This needs --identity shared, so that an upgrade without the
// option does not undo the protection of the nodes.
func movesBack(w *target.Want, r *target.Report) error {
	for i := range w.Daemons {
		d := &w.Daemons[i]
		if len(d.Token) == 0 || r.Kind(d, w.Node) != target.KindPerNode {
			continue
		}
		p, _ := product.Of(d.Bin)
		if c, _ := kube.ClaimsOf(string(d.Token)); c.Subject == p.NodeAccount(w.Node).User() {
			continue
		}
		return hint.Add(fmt.Errorf("%s has an account of its own on this node, and the command would install credentials that all nodes share", d.Name),
			"add --identity per-node to keep the account, or --identity shared to move back")
	}
	return nil
}
