// Package units holds the text of the units, for the verb install of the daemons. The
// directory mirrors /usr/lib/systemd.
//
// It must not know how the units are used.
package units

import _ "embed" // the units

// The text of each unit. What a program does not use is not linked into it.
var (
	//go:embed system/clientmountd.service
	ClientmountdService string

	//go:embed system/nnf-dm.service
	NnfdmService string

	//go:embed system/nnf-dm.socket
	NnfdmSocket string

	//go:embed system/nnf-dm.timer
	NnfdmTimer string
)
