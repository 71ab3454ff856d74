//go:build chaosbug

package failpoint

import "os"

// Bug reports whether CLIENTMOUNTD_BUG selects this seeded defect. The chaos suite must find each of
// them, which shows that its checks work:
//
//	mount-again      mounts again what is mounted already
//	failed-unmount   takes a failed unmount for a successful one
//	finalizer-first  removes the finalizer without an unmount
func Bug(name string) bool { return os.Getenv("CLIENTMOUNTD_BUG") == name }
