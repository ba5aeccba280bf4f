"""Keras itself: writes weights in each of its layouts, and loads what Convoy wrote.

peer.py MODULE MODEL FOLDER [FILE...]: MODULE is keras or tf_keras, MODEL the convolutions of a network as JSON
[[filters, kernel, stride], ...], FOLDER holds images.f32 (float32, NHWC). Writes the logits of each network to FILE.f32
in FOLDER, and prints one JSON line: Keras's version, the files that it wrote, and those of FILE that it loaded.
Keras 1 strides otherwise at the border, so there every stride is 1.
"""
import importlib, json, os, sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
import numpy as np

module, model, folder, files = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], sys.argv[4:]
keras = importlib.import_module(module)
layers = keras.layers
first = keras.__version__.startswith('1.')
images = np.fromfile(os.path.join(folder, 'images.f32'), 'float32').reshape(-1, 32, 32, 3)


def at(name):
    return os.path.join(folder, name)


def build(order):
    """The network; its layers' names sort otherwise than they stand."""
    if first:
        keras.backend.set_image_dim_ordering(order)
    shape = (3, 32, 32) if order == 'th' else (32, 32, 3)
    network = keras.models.Sequential()
    if not first:
        network.add(layers.InputLayer(shape))
    for i, (filters, kernel, stride) in enumerate(model):
        name = 'layer_%d' % (90 - i)
        if first:
            given = {'input_shape': shape} if i == 0 else {}
            network.add(layers.Convolution2D(
                filters, kernel, kernel, border_mode='same', init='he_uniform', name=name, **given))
        else:
            network.add(layers.Conv2D(
                filters, kernel, strides=stride, padding='same', kernel_initializer='he_uniform', name=name))
        if i + 1 < len(model):
            network.add(layers.Activation('relu'))
    network.add(layers.GlobalAveragePooling2D())
    network.add(layers.Activation('linear', name='logits'))
    network.add(layers.Activation('softmax'))
    random = np.random.RandomState(7)
    network.set_weights([
        w if w.ndim > 1 else random.uniform(-0.5, 0.5, w.shape).astype('float32') for w in network.get_weights()
    ])
    return network


def logits(network, file, order='tf'):
    inputs = images.transpose(0, 3, 1, 2) if order == 'th' else images
    output = network.get_layer('logits').output
    if first:
        numbers = keras.backend.function([network.input, keras.backend.learning_phase()], [output])([inputs, 0])[0]
    else:
        # A Sequential that was loaded is not called yet.
        source = network.inputs if getattr(network, 'inputs', None) else network.input
        numbers = keras.Model(source, output).predict(inputs, verbose=0)
    np.asarray(numbers, 'float32').tofile(at(file) + '.f32')


wrote, loaded = [], []
for order in ['th', 'tf'] if first else ['tf']:
    network = build(order)
    major = keras.__version__.split('.')[0]
    names = ['keras%s-%s%s' % (major, order, end) for end in ['-weights.h5', '.h5', '.weights.h5', '.keras']]
    for name in names[:2] if first else names[1:] if major == '3' else names:
        (network.save_weights if 'weights' in name else network.save)(at(name))
        logits(network, name, order)
        wrote.append(name)
for file in files:
    if file.endswith('.weights.h5'):
        network = build('tf')
        network.load_weights(at(file))
    else:
        network = keras.models.load_model(at(file), compile=False)
    logits(network, file)
    loaded.append(file)
print(json.dumps({'version': keras.__version__, 'wrote': wrote, 'loaded': loaded}))
