package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/credentials"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/payload"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

type installSettings struct {
	rollout
	rpms                          []string
	binaries, source, credentials string
	noBuild, noPrograms           bool
	force                         bool
	ready                         time.Duration
	address                       address
	identity                      string
	lifetime                      time.Duration
	tokens                        *nodeTokens // nil: all nodes have the same credentials
	explicit                      bool        // --identity was given
}

var installCommand = &command{
	Name: "install", Args: "[NODE...]", Short: "install the daemons, their credentials and their configuration on the nodes",
	Long: `Without NODE, the command works on all compute nodes of the system. NODE may be a
host list such as compute-[01-20,30]. On each node, the command replaces only what is
different, restarts only the daemons that this affects, and waits until
they are ready. If they are not, it restores the previous state of the node. Mounts
stay.

With --identity per-node, each daemon gets an expiring token of its own account on the
node, which nnf-deploy identities apply has created. The command requests the token
when the node's turn comes, and verifies it before the node gets it. A node keeps its
token while at least half of its lifetime is left; --force replaces it. A node whose
daemons are too old to renew their tokens is not changed. The command enables the
timer that starts nnf-dm for the renewal; to keep it off, mask nnf-dm.timer.

A node that fails or cannot be reached does not delay the others. Repeat the
same command to complete what is missing. After Ctrl-C, the command starts no
further node and waits for those that are being changed: each node ends up in either
the old or the new state.

The programs come from --rpm or --binary-dir, or are built in --source by "make
build-daemon". The command uses your ssh, with your configuration, agent and jump
hosts; it must be able to log in without a prompt.`,
	Examples: []cli.Example{
		{Comment: "Show what would change:", Lines: "nnf-deploy install --rpm bin/rpm/*.rpm --dry-run"},
		{Comment: "All compute nodes, a tenth of them at a time; stop after 3 failures:", Lines: "nnf-deploy install --rpm bin/rpm/*.rpm --batch 10% --max-failures 3"},
		{Comment: "Many nodes, and then again those that failed:", Lines: "nnf-deploy install --no-programs --results results.jsonl 'compute-[001-128,200]'\nnnf-deploy install --no-programs --results results.jsonl --failed"},
		{Comment: "A new token for one daemon, without changing the programs:", Lines: "nnf-deploy install --no-programs --only-daemon nnf-dm"},
		{Comment: "Tokens that open one node only:", Lines: "nnf-deploy install --no-programs --identity per-node 'compute-[001-016]'"},
	},
	Most: -1, Flags: installFlags, Run: runInstall,
}

func installFlags(f *pflag.FlagSet, v *call) {
	c := &v.install
	f.StringArrayVar(&c.rpms, "rpm", nil, "install the package `FILE`; may be repeated; further arguments with the suffix .rpm are packages as well")
	f.StringVar(&c.binaries, "binary-dir", "", "install the programs in `DIR` instead of packages")
	f.StringVar(&c.source, "source", ".", "build the programs in the source tree `DIR`, if neither --rpm nor --binary-dir is given")
	f.BoolVar(&c.noBuild, "no-build", false, "use the programs that are already built in the source tree")
	f.BoolVar(&c.noPrograms, "no-programs", false, "do not change the programs on the nodes")
	f.StringVar(&c.credentials, "credentials", "", "use the credentials that nnf-deploy credentials has written to `DIR`; by default, those of the cluster")
	f.StringVar(&c.identity, "identity", identityShared, "install credentials of the `KIND` shared, which are the same on all nodes, or per-node, of an account of each node")
	cli.Words(f, "identity", identityKinds...)
	f.DurationVar(&c.lifetime, "lifetime", nodeLifetime, "with --identity per-node, let the tokens expire after `DURATION`")
	c.address.flags(f)
	f.BoolVar(&c.dryRun, "dry-run", false, "show what would change on each node, and change nothing")
	f.BoolVar(&c.force, "force", false, "replace everything, even if it is unchanged")
	c.rollout.flags(f)
	f.DurationVar(&c.ready, "ready-timeout", time.Minute, "treat a daemon that is not ready within `DURATION` as failed")
	f.DurationVar(&c.limit, "node-timeout", 15*time.Minute, "treat a node that is not finished within `DURATION` as failed")
	c.nodes.flags(f, "install")
}

// check validates the flags and returns the arguments that are host lists.
func (c *installSettings) check(args []string, given func(string) bool) (names []string, err error) {
	for _, a := range args {
		if strings.HasSuffix(a, ".rpm") && len(c.rpms) > 0 {
			c.rpms = append(c.rpms, a)
		} else {
			names = append(names, a)
		}
	}
	sources := 0
	for _, is := range []bool{len(c.rpms) > 0, c.binaries != "", c.noPrograms} {
		if is {
			sources++
		}
	}
	switch {
	case sources > 1:
		return nil, usage.Errorf("--rpm, --binary-dir and --no-programs are mutually exclusive")
	case sources == 1 && c.noBuild:
		return nil, usage.Errorf("--no-build cannot be used with --rpm, --binary-dir or --no-programs, which build nothing")
	case c.ready < time.Second || c.limit < time.Second:
		return nil, usage.Errorf("--ready-timeout and --node-timeout must be at least 1s")
	case !slices.Contains(identityKinds, c.identity):
		return nil, cli.CheckWord("identity", c.identity, identityKinds)
	case given("lifetime") && c.identity != identityPerNode:
		return nil, usage.Errorf("--lifetime requires --identity per-node")
	case c.identity == identityPerNode && c.credentials != "":
		return nil, usage.Errorf("--credentials and --identity per-node are mutually exclusive: each node gets its own token")
	case c.lifetime < credentials.MinLifetime:
		return nil, usage.Errorf("--lifetime must be at least %v", credentials.MinLifetime)
	}
	return names, cmp.Or(c.rollout.check(), c.nodes.check(names))
}

func runInstall(ctx context.Context, v *call) error {
	c := &v.install
	names, err := c.check(v.Args, v.Given)
	if err != nil {
		return err
	}
	return v.rollOut(ctx, &c.rollout, func(ctx context.Context) (*job, target.Want, error) { return v.prepareInstall(ctx, names) },
		func(ctx, stop context.Context, w *target.Want, step func(string)) fleet.Result {
			return c.installOn(ctx, stop, w, step)
		})
}

// prepareInstall collects everything to install, before the first node is contacted.
func (v *call) prepareInstall(ctx context.Context, names []string) (*job, target.Want, error) {
	c := &v.install
	j, err := v.newJob(ctx, &c.nodes, names)
	if err != nil {
		return nil, target.Want{}, err
	}
	at, err := j.address(c.address)
	if err != nil {
		return nil, target.Want{}, err
	}
	v.noteLoopback(at)
	given := c.address.host != "" || c.address.port != "" || j.site != nil && (j.site.Host != "" || j.site.Port != "")
	daemons, err := j.daemonsFrom(ctx, c.credentials, c.identity, at, given)
	if err != nil {
		return nil, target.Want{}, err
	}
	if c.explicit = v.Given("identity"); c.identity == identityPerNode {
		if c.tokens, err = j.perNode(ctx, at, given, c.lifetime, daemons); err != nil {
			return nil, target.Want{}, err
		}
	}
	want := wantOf(j.nodes[0], at, daemons)
	want.Force, want.Ready = c.force, c.ready
	if want.Payload, err = j.payload(ctx, c); err != nil {
		return nil, target.Want{}, err
	}
	return j, want, want.Check()
}

// installOn brings one node up to date.
func (c *installSettings) installOn(ctx, stop context.Context, w *target.Want, step func(string)) fleet.Result {
	ssh := c.nodes.shell()
	report, err := target.Probe(stop, ssh, w)
	if err != nil {
		return failed(err)
	}
	var notes []string
	switch {
	case c.tokens != nil:
		notes, err = c.tokens.complete(stop, w, report, c.dryRun, step)
	case !c.explicit:
		err = movesBack(w, report)
	}
	if err != nil {
		return c.interrupted(stop, failed(err))
	}
	plan, err := target.Diff(w, report)
	if err != nil {
		return failed(err)
	}
	plan.Notes = append(plan.Notes, notes...)
	r := apply(ctx, stop, ssh, w.Node, plan, c.dryRun, step)
	if r.State == fleet.OK {
		step("verify")
		verify(ctx, ssh, w, &r)
	}
	return r
}

// interrupted returns the result for a node whose preparation has failed. If that was stopped,
// nothing has failed on the node.
func (c *installSettings) interrupted(stop context.Context, r fleet.Result) fleet.Result {
	if stop.Err() != nil {
		r = fleet.Result{State: fleet.Interrupted, Cause: "nothing was changed"}
	}
	return r
}

// verify probes the node again and sets an error if it is not in the wanted state.
func verify(ctx context.Context, ssh remote.Shell, w *target.Want, r *fleet.Result) {
	again := *w
	again.Force = false
	report, err := target.Probe(ctx, ssh, &again)
	if err == nil {
		var plan *target.Plan
		if plan, err = target.Diff(&again, report); err == nil && plan.Empty() {
			return
		}
		if err == nil {
			err = &target.Problem{Text: "the node differs again: " + plan.Changes[0].String(), Hint: "check whether another tool manages this node"}
		}
	}
	f := failed(err)
	if f.State == fleet.Interrupted { // the installation was not
		f.Cause = err.Error()
	}
	r.State, r.Cause, r.Hint = fleet.Failed, "the installation succeeded, but the check after it failed: "+f.Cause, f.Hint
}

// daemonsFrom returns the wanted daemons. dir is a directory with credentials; if it is
// empty, they come from the cluster. at is the address of the API server; if it was given by
// the administrator, the credentials are verified there.
func (j *job) daemonsFrom(ctx context.Context, dir, identity string, at inventory.Address, given bool) ([]target.Daemon, error) {
	var list []target.Daemon
	for _, d := range j.daemons {
		want, err := daemonOf(d)
		if err != nil {
			return nil, err
		}
		switch {
		case d.Account.Name == "":
		case identity == identityPerNode && own(&want): // each node has its own
		case dir != "":
			err = readCredentials(dir, len(j.daemons) == 1, &want)
		default:
			err = j.fetch(ctx, d, at, given, &want)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, want)
	}
	return list, nil
}

func (j *job) fetch(ctx context.Context, d inventory.Daemon, at inventory.Address, given bool, want *target.Daemon) error {
	admin, err := j.cluster()
	if err != nil {
		return hint.Add(err, "alternatively, give the credentials with --credentials DIR")
	}
	r := credentials.Request{Account: d.Account, Program: d.Bin, Wait: 15 * time.Second}
	if given {
		r.Address = at
	}
	c, err := credentials.Get(ctx, admin, r)
	if err != nil {
		err = fmt.Errorf("%s: %w", d.Name, err)
		if j.v.Given("identity") {
			return err
		}
		return hint.Add(err, "if the nodes have accounts of their own, add --identity per-node")
	}
	for _, n := range c.Notes {
		j.v.Say("%s: note: %s", d.Name, n)
	}
	want.Token, want.CA = []byte(c.Token), c.CA
	return nil
}

func daemonOf(d inventory.Daemon) (target.Daemon, error) {
	want := target.Daemon{Name: d.Name, Bin: d.Bin, Account: d.Account}
	var err error
	if want.Arguments, err = words(d.ExtraArgs); err != nil {
		return want, fmt.Errorf("%s: extraArgs: %w", d.Name, err)
	}
	for _, e := range d.Env {
		want.Environment = append(want.Environment, target.Variable{Name: e.Name, Value: e.Value})
	}
	return want, nil
}

// words splits text at spaces outside quotes, and removes the quotes.
func words(text string) (list []string, err error) {
	var word strings.Builder
	inside, quote := false, rune(0)
	for _, c := range text {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '"' || c == '\'':
			inside, quote = true, c
		case c == ' ':
			if inside {
				list = append(list, word.String())
				word.Reset()
			}
			inside = false
		default:
			inside = true
			word.WriteRune(c)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("missing closing quote %c", quote)
	}
	if inside {
		list = append(list, word.String())
	}
	return list, nil
}

// readCredentials reads the files that nnf-deploy credentials has written to dir. If there is
// only one daemon, they can be in dir itself.
func readCredentials(dir string, single bool, want *target.Daemon) error {
	below := filepath.Join(dir, want.Name)
	if _, err := os.Stat(below); single && errors.Is(err, fs.ErrNotExist) {
		below = dir
	}
	for _, f := range []struct {
		name string
		into *[]byte
	}{{product.TokenFile, &want.Token}, {product.CertFile, &want.CA}} {
		data, err := os.ReadFile(filepath.Join(below, f.name))
		if err != nil {
			return fmt.Errorf("credentials of %s: %w", want.Name, err)
		}
		if len(strings.TrimSpace(string(data))) == 0 {
			return fmt.Errorf("credentials of %s: %s is empty", want.Name, filepath.Join(below, f.name))
		}
		if kube.Encoded(data) {
			return fmt.Errorf("credentials of %s: %s %s", want.Name, filepath.Join(below, f.name), kube.StillEncoded)
		}
		*f.into = data
	}
	return nil
}

// wantOf returns the wanted state of one node.
func wantOf(node inventory.Node, at inventory.Address, daemons []target.Daemon) target.Want {
	return target.Want{Node: node.Name, Host: at.Host, Port: strconv.Itoa(at.Port), Daemons: daemons}
}

// payload returns the programs or packages to install.
func (j *job) payload(ctx context.Context, c *installSettings) (payload.Payload, error) {
	var names []string
	for _, d := range j.daemons {
		if d.Bin != "" {
			names = append(names, d.Bin)
		}
	}
	switch {
	case c.noPrograms || len(names) == 0:
		return payload.Payload{}, nil
	case len(c.rpms) > 0:
		p, skipped, err := payload.Packages(c.rpms, names)
		for _, s := range skipped {
			j.v.Say("note: %s is left out: it is not a package of %s", s, strings.Join(names, " or "))
		}
		return p, err
	case c.binaries != "":
		return payload.Programs(c.binaries, names)
	}
	var all payload.Payload
	var built []string
	for _, d := range j.daemons {
		if d.Bin == "" {
			continue
		}
		dir := c.source
		if d.Repository != "" && c.source != "." {
			dir = filepath.Join(c.source, d.Repository)
		}
		command := d.BuildCommand
		if command == "" {
			command = "make build-daemon"
		}
		if key := dir + "\x00" + command; !c.noBuild && !slices.Contains(built, key) {
			built = append(built, key)
			j.v.Say("%s in %s", command, dir)
			if err := payload.Build(ctx, dir, command, j.v.Stderr); err != nil {
				return payload.Payload{}, err
			}
		}
		where := d.Path
		if where == "" {
			where = "bin"
		}
		p, err := payload.Programs(filepath.Join(dir, where), []string{d.Bin})
		if err != nil {
			return payload.Payload{}, err
		}
		all.Programs = append(all.Programs, p.Programs...)
	}
	return all, nil
}
