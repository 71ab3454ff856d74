package clientmountd

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/timeline"
)

type timelineSettings struct{ workflow string }

var timelineCommand = &command{
	Name: "timeline", Short: "show how long each step of the current and past mounts took",
	Long: `The command shows all ClientMounts that have a record, and those of the history, which
the daemon keeps in its runtime directory until the node restarts. Each line is one step, with
its kind, its time and a bar. Repetitions of a step are one line: its time is that of all tries,
and the pauses between them are a separate step.

With -o trace, the output is in the trace event format of Chrome: open it in
https://ui.perfetto.dev. Each mount is a thread of it.`,
	Examples: []cli.Example{
		{Comment: "Write the timeline of a workflow for Perfetto:", Lines: "clientmountd timeline --workflow my-job -o trace > my-job.json"},
	},
	Formats: []string{formatTrace}, Flags: timelineFlags, Run: runTimeline,
}

func timelineFlags(f *pflag.FlagSet, v *call) {
	f.StringVar(&v.timeline.workflow, "workflow", "", "show only the mounts of the workflow `NAME`")
}

func runTimeline(_ context.Context, v *call) error {
	if err := needRoot(readRecords); err != nil {
		return err
	}
	v.directory = v.runtimeDirectory()
	doc, err := clientmount.ReadTimeline(v.directory)
	if err != nil {
		return err
	}
	timeline.Select(doc, v.timeline.workflow)
	switch v.output {
	case formatJSON:
		return text.JSON(v.Stdout, doc)
	case formatTrace:
		return timeline.Trace(v.Stdout, []*mountstate.Timeline{doc})
	}
	_, unreadable, _ := clientmount.ReadRecords(v.directory)
	for _, problem := range unreadable {
		v.Say("warning: %s", text.Line(problem))
	}
	if len(doc.Lives) == 0 && len(unreadable) == 0 {
		v.none(v.timeline.workflow)
	}
	return timeline.Bars(v.Stdout, doc)
}
