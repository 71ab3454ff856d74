package dmctl

import (
	"cmp"
	"context"
	"fmt"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/table"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

var listCommand = &command{
	Name: "list", Short: "list the copies that the job has started on this node",
	Long: "With --quiet, the command prints only the ids.",
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
	var rows [][]string
	for _, m := range all {
		state, done := string(m.State), "-"
		if m.Result != "" {
			state = string(m.Result)
		}
		if m.Percent != nil {
			done = fmt.Sprintf("%d%%", *m.Percent)
		}
		rows = append(rows, []string{m.ID, state, done, cmp.Or(m.Source, "-"), cmp.Or(m.Destination, "-")})
	}
	return table.Write(v.Stdout, []string{"ID", "STATE", "DONE", "SOURCE", "DESTINATION"}, rows)
}
