"""The CNI exec interface: environment and stdin in, one JSON document out.

Everything here is standard library only and cheap to import: it is the path of every
plugin call. The rules are those of the CNI spec 1.1.0 and, where it is silent, of its
reference main loop (`skel`) and library (`libcni`), which engines are written against.
"""
