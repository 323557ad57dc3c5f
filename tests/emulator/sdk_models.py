"""Compares the models of the vendor's SDK with responses."""

TYPES = {"str": str, "int": int, "bool": bool, "datetime": str}


def only_loopback(event, arguments):
    """Stops the test if the SDK connects to anything but the emulator."""
    if event == "socket.connect":
        assert arguments[1][0] == "127.0.0.1", arguments[1]


def compare(where, model, sent, optional=frozenset()):
    """Asserts that the model's keys were sent and no others, with its values and its declared types."""
    names = {wire: name for name, wire in model.attribute_map.items()}
    missing = names.keys() - sent.keys() - optional
    assert not missing, f"{where} lacks {missing}"
    for key, value in sent.items():
        assert key in names, f"{where}.{key} is not the vendor's"
        declared = model.openapi_types[names[key]]
        read = getattr(model, names[key])
        if isinstance(value, dict):
            compare(f"{where}.{key}", read, value)
        elif isinstance(value, list):
            assert declared.startswith("list[") and len(read) == len(value), f"{where}.{key}"
            for element, item in zip(value, read):
                if isinstance(element, dict):
                    compare(f"{where}.{key}[]", item, element)
                else:
                    check(f"{where}.{key}", element, item, declared[5:-1])
        elif value is not None:
            check(f"{where}.{key}", value, read, declared)


def check(where, sent, read, declared):
    assert type(sent) is TYPES[declared] and read == sent, f"{where}: {declared}, but {type(sent)}"
