package dmctl

import (
	"errors"
	"fmt"

	"github.com/compute-daemons/compute-daemons/internal/cli/screen"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

type listDocument struct {
	Copies []client.Movement `json:"copies"`
}

func (v *call) showJSON(all []client.Movement) error {
	if all == nil {
		all = []client.Movement{}
	}
	return text.JSON(v.Stdout, listDocument{all})
}

// showAll is the answer about copies, and sets the exit code.
func (v *call) showAll(all []client.Movement) error {
	if code := exitOfAll(all); v.Code == ExitOK {
		v.Code = code
	}
	if v.output == formatJSON {
		return v.showJSON(all)
	}
	for _, m := range all {
		bad := exitOfResult[m.Result] != ExitOK
		if v.quiet && !bad {
			continue
		}
		line := screen.Summary(m)
		if v.quiet {
			v.Explain(errors.New(line))
			continue
		}
		if m.Message != "" && m.Result == client.Success {
			line += "\n" + text.Text(m.Message) // what --store-stdout asked for
		}
		if _, err := fmt.Fprintln(v.Stdout, line); err != nil {
			return err
		}
	}
	return nil
}
