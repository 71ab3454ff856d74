// Package text makes text of others, and documents with it, safe to be shown:
// nothing in it can steer a terminal.
//
// It must not know what the text is about.
package text
