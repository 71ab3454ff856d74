package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/credentials"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/nodeset"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

type credentialsSettings struct {
	daemons                    []string
	out                        string
	account, namespace, secret string
	identity                   string
	bound                      bool
	node                       string
	lifetime, wait             time.Duration
	address                    address
}

var credentialsCommand = &command{
	Name: "credentials", Short: "get the tokens of the daemons and the CA from the cluster",
	Long: `For each daemon, the command writes the files service.token and service.cert, mode
0600, to the directory of --out. If there are several daemons, each has its own
directory in it. Before it writes anything, the command checks with the API server
which account the token belongs to, and whether the account has the permissions that
the daemon needs.

The token is the one in the Secret of the account. It does not expire, and all
compute nodes share it. With --bound, the command requests a token that expires after
--lifetime; install the next one on the nodes before that.

With --identity per-node, the token is one of the daemon's own account on the node
--node, which nnf-deploy identities apply has created. It expires after --lifetime, and
the daemon renews it.`,
	Examples: []cli.Example{
		{Comment: "Both daemons, into ./credentials/clientmountd and ./credentials/nnf-dm:", Lines: "nnf-deploy credentials --out credentials"},
		{Comment: "Tokens of the accounts that both daemons have on one node:", Lines: "nnf-deploy credentials --identity per-node --node compute-01 --out credentials"},
		{Comment: "A token for one node that is valid for a day:", Lines: "nnf-deploy credentials --daemon clientmountd --bound --node compute-01 --out credentials"},
	},
	Flags: credentialsFlags, Run: runCredentials,
}

func credentialsFlags(f *pflag.FlagSet, v *call) {
	c := &v.credentials
	f.StringArrayVar(&c.daemons, "daemon", nil, "get the credentials of the daemon `NAME`, clientmountd or nnf-dm; may be repeated; by default, of both")
	cli.Words(f, "daemon", product.Names()...)
	f.StringVar(&c.out, "out", "", "write the files to `DIR`, which is created if it does not exist")
	f.StringVar(&c.identity, "identity", identityShared, "get credentials of the `KIND` shared, which are the same on all nodes, or per-node, of an account of the node --node")
	cli.Words(f, "identity", identityKinds...)
	f.BoolVar(&c.bound, "bound", false, "request an expiring token")
	f.StringVar(&c.node, "node", "", "with --identity per-node, the compute node `NAME`; with --bound, make the token invalid when the node NAME is removed from the cluster")
	f.DurationVar(&c.lifetime, "lifetime", 0, "with --bound or --identity per-node, let the token expire after `DURATION`; by default, 24h with --bound, and 168h with --identity per-node")
	f.StringVar(&c.account, "service-account", "", "use the service account `NAME` instead of the usual one")
	f.StringVar(&c.namespace, "namespace", "", "use the namespace `NAME` instead of the usual one")
	f.StringVar(&c.secret, "secret", "", "use the token in the Secret `NAME` instead of that of the account")
	f.DurationVar(&c.wait, "wait", 15*time.Second, "wait up to `DURATION` for the control plane to fill the Secret")
	c.address.flags(f)
}

// check validates the flags.
func (c *credentialsSettings) check(given func(string) bool) error {
	for _, d := range c.daemons {
		if !slices.Contains(product.Names(), d) {
			return usage.Errorf("--daemon must be one of %s, not %.80q", strings.Join(product.Names(), ", "), d)
		}
	}
	perNode := c.identity == identityPerNode
	if !given("lifetime") {
		if c.lifetime = 24 * time.Hour; perNode {
			c.lifetime = nodeLifetime
		}
	}
	switch {
	case c.out == "":
		return usage.Errorf("--out DIR is required")
	case !slices.Contains(identityKinds, c.identity):
		return cli.CheckWord("identity", c.identity, identityKinds)
	case perNode && !given("node"):
		return usage.Errorf("--identity per-node requires --node NAME")
	case perNode && (c.bound || c.account != "" || c.namespace != "" || c.secret != "" || given("wait")):
		return usage.Errorf("--bound, --service-account, --namespace, --secret and --wait cannot be used with --identity per-node")
	case len(c.selected()) > 1 && (c.account != "" || c.namespace != "" || c.secret != ""):
		return usage.Errorf("--service-account, --namespace and --secret apply to one daemon: add --daemon")
	case !c.bound && !perNode && (given("node") || given("lifetime")):
		return usage.Errorf("--node and --lifetime require --bound or --identity per-node: the token in a Secret is valid for all nodes and does not expire")
	case c.bound && (c.secret != "" || given("wait")):
		return usage.Errorf("--secret and --wait cannot be used with --bound, which uses no Secret")
	case c.lifetime < credentials.MinLifetime:
		return usage.Errorf("--lifetime must be at least %v", credentials.MinLifetime)
	case c.wait < 0:
		return usage.Errorf("--wait must not be negative")
	case given("node"):
		return c.parseNode()
	}
	return nil
}

// parseNode parses --node, a host list that must expand to one node.
func (c *credentialsSettings) parseNode() error {
	if c.node == "" {
		return usage.Errorf("--node: %v", inventory.CheckName(c.node))
	}
	names, err := nodeset.Expand(c.node)
	switch {
	case err != nil:
		return usage.Errorf("--node: %v", err)
	case len(names) > 1:
		return usage.Errorf("--node: %.80q expands to %d nodes, but a token can be bound to only one", c.node, len(names))
	}
	c.node = names[0]
	if err := inventory.CheckName(c.node); err != nil {
		return usage.Errorf("--node: %v", err)
	}
	return nil
}

// selected returns the daemons of --daemon, by default all, in the usual order.
func (c *credentialsSettings) selected() []inventory.Daemon {
	return slices.DeleteFunc(inventory.Defaults(), func(d inventory.Daemon) bool {
		return len(c.daemons) > 0 && !slices.Contains(c.daemons, d.Name)
	})
}

// request returns the request for a daemon. node is the one of --identity per-node.
func (c *credentialsSettings) request(d inventory.Daemon, node inventory.Node) credentials.Request {
	if p, _ := product.Of(d.Bin); c.identity == identityPerNode {
		return credentials.ForNode(p, node, c.lifetime)
	}
	r := credentials.Request{
		Account: d.Account, Program: d.Bin, Secret: c.secret, Wait: c.wait,
		Bound: c.bound, Node: c.node, Lifetime: c.lifetime,
	}
	if c.account != "" {
		r.Account.Name = c.account
	}
	if c.namespace != "" {
		r.Account.Namespace = c.namespace
	}
	return r
}

func runCredentials(ctx context.Context, v *call) error {
	ctx, cancel := v.Interruptible(ctx, "")
	defer cancel(nil)
	return cli.Interrupted(ctx, v.getCredentials(ctx))
}

func (v *call) getCredentials(ctx context.Context) error {
	c := &v.credentials
	if err := c.check(v.Given); err != nil {
		return err
	}
	admin, err := v.cluster()
	if err != nil {
		return err
	}
	at, err := c.address.of(admin.Address())
	switch u := (*usage.Error)(nil); {
	case errors.As(err, &u):
		return err
	case err != nil:
		v.Say("note: %v", err)
	default:
		v.noteLoopback(at)
	}
	var node inventory.Node
	if c.identity == identityPerNode {
		if node, err = computeNode(ctx, admin, c.node); err != nil {
			return err
		}
	}
	// Fetch and verify all credentials before writing the first file.
	var all []result
	for _, d := range c.selected() {
		r := c.request(d, node)
		if c.address.host != "" || c.address.port != "" {
			r.Address = at
		}
		got, err := credentials.Get(ctx, admin, r)
		if err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
		for _, n := range got.Notes {
			v.Say("%s: note: %s", d.Name, n)
		}
		all = append(all, result{daemon: d.Name, identity: c.identity, Credentials: got})
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for i := range all {
		dir := c.out
		if len(all) > 1 {
			dir = filepath.Join(dir, all[i].daemon)
		}
		if all[i].written, err = all[i].Write(dir); err != nil {
			return fmt.Errorf("%s: %w", all[i].daemon, addWritten(all[:i], err))
		}
	}
	return v.showCredentials(all, at)
}

// computeNode returns a compute node of the cluster.
func computeNode(ctx context.Context, admin *kube.Client, name string) (inventory.Node, error) {
	system, err := inventory.FromCluster(ctx, admin)
	if err != nil {
		return inventory.Node{}, err
	}
	all, err := inventory.Nodes(system)
	if err != nil {
		return inventory.Node{}, err
	}
	nodes, err := inventory.Select(all, []string{name})
	if err != nil {
		return inventory.Node{}, fmt.Errorf("--node: %w", err)
	}
	return nodes[0], nil
}

// addWritten adds to an error which credentials have been written before it.
func addWritten(before []result, err error) error {
	if pe := (*os.PathError)(nil); errors.As(err, &pe) && pe.Path == "." {
		err = pe.Err
	}
	for _, r := range before {
		err = fmt.Errorf("%w; the credentials of %s have already been written", err, r.daemon)
	}
	return err
}

// result has the credentials of one daemon, and the files that they were written to.
type result struct {
	daemon   string
	identity string
	*credentials.Credentials
	written []credentials.Written
}

type credentialsDocument struct {
	Server      string                `json:"server"`         // where the credentials were verified
	Host        string                `json:"host,omitempty"` // for compute nodes
	Port        int                   `json:"port,omitempty"`
	Credentials []credentialsJSONItem `json:"credentials"`
}

type credentialsJSONItem struct {
	Daemon    string     `json:"daemon"`
	Namespace string     `json:"namespace"`
	Account   string     `json:"service_account"`
	Source    string     `json:"source"`
	Identity  string     `json:"identity"`
	Bound     bool       `json:"bound"`
	Node      string     `json:"node,omitempty"`
	Expires   *time.Time `json:"expires"` // null: never
	Rights    int        `json:"rights_checked"`
	Files     []fileJSON `json:"files"`
	Notes     []string   `json:"notes"`
}

type fileJSON struct {
	Path   string `json:"path"`
	Change string `json:"change"`
}

func (v *call) showCredentials(all []result, at inventory.Address) error {
	if v.output == formatJSON {
		d := credentialsDocument{Host: at.Host, Port: at.Port}
		for _, r := range all {
			d.Server = r.Server
			d.Credentials = append(d.Credentials, r.json())
		}
		return text.JSON(v.Stdout, d)
	}
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "%s: %s\n", r.daemon, text.Line(r.summary()))
		for _, w := range r.written {
			fmt.Fprintf(&b, "  %-9s  %s\n", w.Change, text.Line(w.Path))
		}
	}
	if at.Host != "" {
		fmt.Fprintf(&b, "API server for compute nodes: host %s, port %d\n", at.Host, at.Port)
	}
	_, err := fmt.Fprint(v.Stdout, b.String())
	return err
}

// summary describes the credentials on one line.
func (r *result) summary() string {
	end := "does not expire"
	if !r.Expires.IsZero() {
		end = "expires at " + r.Expires.UTC().Format(time.RFC3339)
	}
	if r.Node != "" {
		end += " or when node " + r.Node + " is removed"
	}
	return fmt.Sprintf("the token of %s %s; %d permissions checked at %s", r.Account, end, r.Rights, r.Server)
}

func (r *result) json() credentialsJSONItem {
	item := credentialsJSONItem{
		Daemon: r.daemon, Namespace: r.Account.Namespace, Account: r.Account.Name, Source: r.Source,
		Identity: r.identity, Bound: r.Bound, Node: r.Node, Rights: r.Rights, Notes: append([]string{}, r.Notes...),
	}
	if !r.Expires.IsZero() {
		end := r.Expires.UTC()
		item.Expires = &end
	}
	for _, w := range r.written {
		item.Files = append(item.Files, fileJSON{w.Path, w.Change})
	}
	return item
}
