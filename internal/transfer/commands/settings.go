package commands

import (
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/transfer"
)

// settings is what environment and flags say.
type settings struct {
	socket, workflow, namespace string
	output                      string
	quiet                       bool

	wait    bool
	timeout time.Duration
	copy    copySettings
}

const (
	formatText = "text"
	formatJSON = "json"
)

var formats = []string{formatText, formatJSON}

// environment is what of the environment is used.
var environment = []struct{ name, meaning string }{
	{"DW_WORKFLOW_NAME", "the job's workflow; jobs have it set"},
	{"DW_WORKFLOW_NAMESPACE", "its namespace, if it is not default; jobs have it set"},
	{"NNF_DM_SOCKET", "the daemon's socket, if it is not " + transfer.DefaultSocket},
	{"TERM", "dumb: no progress bar"},
}

func getenv(environ []string, name string) string {
	value := ""
	for _, kv := range environ {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			value = v
		}
	}
	return value
}

func defaults(environ []string) settings {
	s := settings{
		socket:   getenv(environ, "NNF_DM_SOCKET"),
		workflow: getenv(environ, "DW_WORKFLOW_NAME"), namespace: getenv(environ, "DW_WORKFLOW_NAMESPACE"),
		output: formatText,
	}
	if s.socket == "" {
		s.socket = transfer.DefaultSocket
	}
	if s.namespace == "" {
		s.namespace = "default"
	}
	return s
}

// flagSet has the flags of every sub-command. They may also stand before its
// name, so the defaults are what is known by then.
func (s *settings) flagSet(name string) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() {}
	f.StringVarP(&s.workflow, "workflow", "w", s.workflow, "`NAME` of the workflow")
	f.StringVarP(&s.namespace, "namespace", "n", s.namespace, "`NAMESPACE` of the workflow")
	f.StringVar(&s.socket, "socket", s.socket, "`PATH` of the daemon's socket")
	f.StringVarP(&s.output, "output", "o", s.output, "`FORMAT` of the answer: text or json")
	f.BoolVarP(&s.quiet, "quiet", "q", s.quiet, "say no more than necessary")
	return f
}

func waitFlags(f *pflag.FlagSet, s *settings) {
	f.DurationVar(&s.timeout, "timeout", 0, "wait no longer than `DURATION`, for example 90s or 2h")
}
