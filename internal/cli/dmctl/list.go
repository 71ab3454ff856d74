package dmctl

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

var listCommand = &command{
	Name: "list", Short: "list the copies that the job has started on this node",
	Long: "With --quiet, only the ids are printed.",
	Run:  withDaemon(runList),
}

func runList(ctx context.Context, v *call) error {
	if v.workflow == "" {
		return noWorkflow
	}
	ctx, cancel := v.Interruptible(ctx, detached)
	defer cancel(nil)
	all, err := v.client.List(ctx)
	if err != nil {
		return cli.Interrupted(ctx, err)
	}
	switch {
	case v.output == formatJSON:
		return v.showJSON(all)
	case v.quiet:
		for _, m := range all {
			if _, err := fmt.Fprintln(v.Stdout, text.Line(m.ID)); err != nil {
				return err
			}
		}
		return nil
	}
	return v.table(all)
}

func (v *call) table(all []client.Movement) error {
	w := tabwriter.NewWriter(v.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATE\tDONE\tSOURCE\tDESTINATION")
	for _, m := range all {
		state, done := string(m.State), "-"
		if m.Result != "" {
			state = string(m.Result)
		}
		if m.Percent != nil {
			done = fmt.Sprintf("%d%%", *m.Percent)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", text.Line(m.ID), state, done, orDash(m.Source), orDash(m.Destination))
	}
	return w.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return text.Line(s)
}
