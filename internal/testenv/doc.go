// Package testenv holds the real servers that the tests and the demo run. Each server has its own
// package below this folder; docs/architecture.md lists them. The operator imports none of them.
//
// A function named Start returns a handle with a Stop method. A function whose name begins with Run
// does the same for a test: it fails the test if the server does not start, and stops the server
// when the test ends. If the test has failed, it also logs the tail of the server's log.
//
// The servers listen on free loopback ports, with certificates that are made at each start.
package testenv
