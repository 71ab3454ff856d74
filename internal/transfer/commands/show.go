package commands

import (
	"errors"
	"fmt"

	"github.com/compute-daemons/compute-daemons/internal/printable"
	"github.com/compute-daemons/compute-daemons/internal/transfer"
	"github.com/compute-daemons/compute-daemons/internal/transfer/screen"
)

type listDocument struct {
	Copies []transfer.Movement `json:"copies"`
}

func (v *call) showJSON(all []transfer.Movement) error {
	if all == nil {
		all = []transfer.Movement{}
	}
	return printable.JSON(v.Stdout, listDocument{all})
}

// showAll is the answer about copies, and sets the exit code.
func (v *call) showAll(all []transfer.Movement) error {
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
		if m.Message != "" && m.Result == transfer.Success {
			line += "\n" + printable.Text(m.Message) // what --store-stdout asked for
		}
		if _, err := fmt.Fprintln(v.Stdout, line); err != nil {
			return err
		}
	}
	return nil
}
