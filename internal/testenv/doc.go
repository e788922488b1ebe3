// Package testenv names the real servers that the tests and the demo need. Each has a package of
// its own below this folder; docs/architecture.md lists them. They are never part of the operator.
//
// Functions named Start return a handle with a Stop method. Those named Run, and those whose name
// begins with it, do the same for a test: they fail it when the server does not come up, show the
// tail of the server's log when the test failed, and stop the server at its end.
//
// The servers listen on free loopback ports with certificates made on the spot.
package testenv
