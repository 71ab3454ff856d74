package deploy

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

type doctorSettings struct {
	report  reportSettings
	bundle  string
	offline bool
}

var doctorCommand = &command{
	Name: "doctor", Args: "[NODE...]", Short: "check everything that clientmountd needs on the nodes, and collect support bundles",
	Long: `Without NODE, the command checks all compute nodes of the system. NODE may be a host
list such as compute-[01-20,30]. It runs clientmountd doctor on the nodes, and shows
the checks whose result is WARN or FAIL, with the nodes that have the same result.
Parts that differ between the nodes, such as paths and process IDs, are left out;
-o json has all checks of each node.

With --bundle, it also fetches a support bundle from each node and writes it to a new
file, which only you can read: DIR/NODE.tar.gz or, for --bundle NAME.tar.gz,
NAME-NODE.tar.gz. Nothing stays on the node. Secrets are removed from the bundles;
check them before you send them.

The exit code is 1 if a check fails, and if a node does not answer.`,
	Examples: []cli.Example{
		{Comment: "Check two nodes, and collect what a support case needs:", Lines: "nnf-deploy doctor --bundle case-4711 'compute-[03,17]'"},
	},
	Most: -1, Flags: doctorFlags, Run: runDoctor,
}

func doctorFlags(f *pflag.FlagSet, v *call) {
	f.StringVar(&v.doctor.bundle, "bundle", "", "also write a support bundle of each node to the directory `DIR`, or for NAME.tar.gz to NAME-NODE.tar.gz")
	f.BoolVar(&v.doctor.offline, "offline", false, "skip the checks that use the network")
	v.doctor.report.flags(f, "doctor", 2*time.Minute)
}

// checked is the answer of a node.
type checked struct {
	checks []checklist.Check
	bundle string // path of its file
}

func runDoctor(ctx context.Context, v *call) error {
	c := &v.doctor
	if err := c.prepare(); err != nil {
		return err
	}
	arguments := []string{"doctor", "-o", "json"}
	if c.offline {
		arguments = append(arguments, "--offline")
	}
	results, documents, err := collect(ctx, v, &c.report, func(stop context.Context, w *target.Want) (*checked, fleet.Result) {
		doc, err := c.ask(stop, w.Node, arguments)
		switch {
		case err != nil:
			return nil, failed(err)
		case checklist.Failed(doc.checks):
			return doc, fleet.Result{State: fleet.Differs}
		}
		return doc, fleet.Result{State: fleet.OK}
	})
	if results == nil {
		return err
	}
	var failure error
	if v.output == formatJSON {
		failure = doctorJSON(v.Stdout, results, documents)
	} else {
		failure = doctorLines(v.Stdout, results, documents)
	}
	v.concluded(results)
	if v.output == formatText && len(results) > 0 {
		v.Say("%d of %d nodes have no failed check", fleet.Count(results)[fleet.OK], len(results))
		if c.bundle != "" {
			v.Say("support bundles: %d, in %s; secrets are removed, but check them before you send them", len(documents), text.Line(c.path("NODE")))
		}
	}
	return cmp.Or(err, failure)
}

// bundleSuffix is the end of the names of bundles.
const bundleSuffix = ".tar.gz"

// path returns the path of the bundle of a node.
func (c *doctorSettings) path(node string) string {
	if stem, is := strings.CutSuffix(c.bundle, bundleSuffix); is {
		return stem + "-" + node + bundleSuffix
	}
	return filepath.Join(c.bundle, node+bundleSuffix)
}

// prepare creates the directory for bundles.
func (c *doctorSettings) prepare() error {
	if c.bundle == "" {
		return nil
	}
	if err := cli.CheckFile("bundle", c.bundle); err != nil {
		return err
	}
	if filepath.Base(c.bundle) == bundleSuffix {
		return usage.Errorf("--bundle %.80q has no name before %s", c.bundle, bundleSuffix)
	}
	dir := filepath.Dir(c.path("node"))
	if !strings.HasSuffix(c.bundle, bundleSuffix) {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("--bundle: %w", err)
		}
	}
	if st, err := os.Stat(dir); err != nil {
		return fmt.Errorf("--bundle: %w", err)
	} else if !st.IsDir() {
		return fmt.Errorf("--bundle: %s is not a directory", text.Line(dir))
	}
	return nil
}

// ask checks a node, and fetches its bundle.
func (c *doctorSettings) ask(ctx context.Context, node string, arguments []string) (*checked, error) {
	if c.bundle == "" {
		answer, err := target.Ask(ctx, c.report.nodes.shell(), node, arguments...)
		if err != nil {
			return nil, err
		}
		return checksOf(answer)
	}
	path := c.path(node)
	if _, err := os.Lstat(path); err == nil {
		return nil, &target.Problem{Text: text.Line(path) + " exists", Hint: "choose another --bundle, or remove the file"}
	}
	answer, bundle, err := target.AskBundle(ctx, c.report.nodes.shell(), node, arguments...)
	if err != nil {
		return nil, err
	}
	doc, err := checksOf(answer)
	if err != nil {
		return nil, err
	}
	if err := create(path, bundle); err != nil {
		return nil, fmt.Errorf("--bundle: %w", err)
	}
	doc.bundle = path
	return doc, nil
}

// checksOf returns the checks of a node from its answer. Nothing in it is trusted.
func checksOf(a *target.Answer) (*checked, error) {
	if len(a.Output) == 0 {
		return nil, noAnswer("doctor", a)
	}
	doc, err := text.ParseJSON[checklist.Document](a.Output, checklist.Version)
	if err != nil {
		return nil, fmt.Errorf("the output of clientmountd doctor: %w", err)
	}
	list := doc.Checks[:min(len(doc.Checks), maxProblems)]
	for i := range list {
		k := &list[i]
		k.Name, k.State = text.Clip(text.Line(k.Name), 60), checklist.State(text.Clip(text.Line(string(k.State)), 20))
		k.Text, k.Hint = text.Clip(text.Line(k.Text), 1000), text.Clip(text.Line(k.Hint), 1000)
	}
	return &checked{checks: append([]checklist.Check{}, list...)}, nil
}

// create writes a new file as a whole: under its name, it is never a part. It replaces no file.
func create(path string, data []byte) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()[:8])
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(temporary)
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(temporary, path)
}

func doctorLines(w io.Writer, results []fleet.Result, documents map[string]*checked) error {
	var reasons []*reason
	for _, r := range results {
		doc := documents[r.Node]
		if doc == nil {
			continue
		}
		seen := map[string]bool{} // results of several objects on a node can be the same
		for _, k := range doc.checks {
			if k.State != checklist.Fail && k.State != checklist.Warn {
				continue
			}
			head := strings.ToUpper(string(k.State)) + " " + k.Name + ": "
			one := reason{text: head + k.Text, hint: k.Hint, common: head + commonText(k.Text, r.Node), commonHint: commonText(k.Hint, r.Node)}
			if k.State == checklist.Warn {
				one.rank = 1
			}
			if !seen[one.common] {
				seen[one.common] = true
				reasons = fold(reasons, r.Node, one)
			}
		}
	}
	byUrgency(reasons)
	for _, r := range reasons {
		line := r.names() + ": " + r.text + "\n"
		if r.hint != "" {
			line += "  hint: " + r.hint + "\n"
		}
		if _, err := io.WriteString(w, line); err != nil {
			return err
		}
	}
	return nil
}

type doctorDocument struct {
	Version int          `json:"version"`
	Nodes   []doctorNode `json:"nodes"`
}

type doctorNode struct {
	answerNode
	Bundle string            `json:"bundle,omitempty"`
	Checks []checklist.Check `json:"checks"`
}

func doctorJSON(w io.Writer, results []fleet.Result, documents map[string]*checked) error {
	doc := doctorDocument{Version: 1, Nodes: []doctorNode{}}
	for _, r := range results {
		n := doctorNode{answerNode: answerNode{r.Node, r.Cause, r.Hint}, Checks: []checklist.Check{}}
		if d := documents[r.Node]; d != nil {
			n.Bundle, n.Checks = d.bundle, d.checks
		}
		doc.Nodes = append(doc.Nodes, n)
	}
	return text.JSON(w, doc)
}
