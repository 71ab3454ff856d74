package clientmountd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/table"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// mountsSettings has the values of the flags of mounts.
type mountsSettings struct {
	workflow string
	sort     string
}

// orders are the values of --sort.
var orders = map[string]func(a, b mountstate.Mount) int{
	"clientmount": func(a, b mountstate.Mount) int { return cmp.Compare(a.ClientMount, b.ClientMount) },
	"workflow":    func(a, b mountstate.Mount) int { return cmp.Compare(a.Workflow, b.Workflow) },
	"path":        func(a, b mountstate.Mount) int { return cmp.Compare(a.Path, b.Path) },
	"state":       func(a, b mountstate.Mount) int { return mountstate.CompareUrgency(&a, &b) },
	"since":       func(a, b mountstate.Mount) int { return a.Since.Compare(b.Since) },
}

// orderNames are the values of --sort, in the order of the help.
var orderNames = []string{"clientmount", "workflow", "path", "state", "since"}

var mountsCommand = &command{
	Name: "mounts", Short: "show the mounts of this node, their state and the last error",
	Long: `It needs neither the daemon nor the API server, and touches no mount. DETAIL has the command that waits in the kernel, the process that keeps the mount in use, the last error, or the command that runs. ` +
		`If a record cannot be read, the command shows the others and an error for it, and the exit code is 1.`,
	Flags: func(f *pflag.FlagSet, v *call) {
		f.StringVar(&v.mounts.workflow, "workflow", "", "show only mounts of the workflow `NAME`")
		f.StringVar(&v.mounts.sort, "sort", "clientmount", "sort by `COLUMN`: clientmount, workflow, path, state (the most urgent first) or since (the oldest first)")
		cli.Words(f, "sort", orderNames...)
	},
	Run: runMounts,
}

// readLimit is how long mounts reads the state of the node.
const readLimit = 10 * time.Second

func runMounts(ctx context.Context, v *call) error {
	if err := cli.CheckWord("sort", v.mounts.sort, orderNames); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readLimit, fmt.Errorf("the state of the node could not be read within %v", readLimit))
	defer cancel()
	doc, err := v.readMounts(ctx)
	if err != nil {
		return err
	}
	if v.mounts.workflow != "" {
		doc.Mounts = slices.DeleteFunc(doc.Mounts, func(m mountstate.Mount) bool { return m.Workflow != v.mounts.workflow })
	}
	slices.SortStableFunc(doc.Mounts, orders[v.mounts.sort])
	if v.output == formatJSON {
		err = text.JSON(v.Stdout, doc)
	} else {
		err = writeMounts(v, doc)
	}
	for _, problem := range doc.Unreadable {
		err = errors.Join(err, errors.New(problem))
	}
	return err
}

func writeMounts(v *call, doc *mountstate.Mounts) error {
	var rows [][]string
	for _, m := range doc.Mounts {
		since := "-"
		if !m.Since.IsZero() {
			since = mountstate.Age(doc.Time.Sub(m.Since))
		}
		rows = append(rows, []string{m.ClientMount, cmp.Or(m.Workflow, "-"), m.Path, m.Type, string(m.State), since, cmp.Or(text.Clip(m.Detail(), detailLimit), "-")})
	}
	if err := table.Write(v.Stdout, []string{"CLIENTMOUNT", "WORKFLOW", "PATH", "TYPE", "STATE", "SINCE", "DETAIL"}, rows); err != nil {
		return err
	}
	if daemon := doc.Daemon.Sentence(doc.Time); len(rows) > 0 && daemon != "" {
		v.Say("%s, so states may not change", daemon)
	} else if len(rows) == 0 && len(doc.Unreadable) == 0 {
		v.none(v.mounts.workflow)
	}
	return nil
}

// none reports that there is nothing to show: where the command has looked, because a wrong directory
// looks like an idle node.
func (v *call) none(workflow string) {
	if workflow != "" {
		workflow = " of workflow " + text.Line(workflow)
	}
	v.Say("no ClientMount%s is recorded in %s", workflow, v.directory)
}

// detailLimit bounds a detail in bytes; the document has the whole text.
const detailLimit = 200
