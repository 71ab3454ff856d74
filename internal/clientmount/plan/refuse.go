package plan

import (
	"fmt"
	"strconv"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// fatal ends the job: the object itself is wrong and waiting will not mend it.
func fatal(format string, args ...any) *dws.ResourceError {
	return dws.NewError(dws.Fatal, fmt.Sprintf(format, args...))
}

// fault lets the job wait: the profile is wrong and an administrator can mend it.
func fault(format string, args ...any) *dws.ResourceError {
	return dws.NewError(dws.Major, fmt.Sprintf(format, args...))
}

// refused names the field, its value and what would be right.
func refused(field, value, rule string) *dws.ResourceError {
	return fatal("%s %s is refused: %s", field, quote(value), rule)
}

// quote makes a value of somebody else fit to print: short, in quotes, without
// control characters.
func quote(s string) string { return text.Quote(s) }

// shorten is quote without the quotes, for texts that others match.
func shorten(s string) string {
	q := quote(s)
	return q[1 : len(q)-1]
}

func entryField(index int, name string) string {
	return "spec.mounts[" + strconv.Itoa(index) + "]." + name
}
